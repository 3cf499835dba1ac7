--liquibase formatted sql

--changeset example:001-schema
CREATE SCHEMA sales;

--changeset example:001-payments
CREATE TABLE sales.payments (
  payment_no character varying(36) NOT NULL,
  customer_no character varying(64),
  stage character varying(50),
  pan character varying(32),
  holder character varying(128),
  amount numeric,
  currency character varying(3),
  refusal character varying(500),
  touched spanner.commit_timestamp,
  PRIMARY KEY (payment_no)
);

--changeset example:001-payments-by-stage
CREATE INDEX payments_by_stage ON sales.payments (stage, touched);

--changeset example:001-sales-order
CREATE TABLE sales."order" (
  payment_no character varying(36) NOT NULL,
  action character varying(100) NOT NULL,
  came_at timestamp with time zone NOT NULL,
  paid_with character varying(32),
  PRIMARY KEY (payment_no)
);

--changeset example:001-order
CREATE TABLE "order" (
  order_no character varying(36) NOT NULL,
  paid_with character varying(32),
  PRIMARY KEY (order_no)
);

--changeset example:001-changes
CREATE CHANGE STREAM shop_changes
  FOR sales.payments, sales."order", "order"
  WITH (retention_period = '7d', value_capture_type = 'NEW_ROW_AND_OLD_VALUES');
