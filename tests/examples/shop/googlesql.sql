--liquibase formatted sql

--changeset example:001-schema
CREATE SCHEMA sales;

--changeset example:001-payments
CREATE TABLE sales.payments (
  payment_no STRING(36) NOT NULL,
  customer_no STRING(64),
  stage STRING(50),
  pan STRING(32),
  holder STRING(128),
  amount NUMERIC,
  currency STRING(3),
  refusal STRING(500),
  touched TIMESTAMP OPTIONS (allow_commit_timestamp = true),
) PRIMARY KEY (payment_no);

--changeset example:001-payments-by-stage
CREATE INDEX sales.payments_by_stage ON sales.payments (stage, touched);

--changeset example:001-sales-order
CREATE TABLE sales.`order` (
  payment_no STRING(36) NOT NULL,
  action STRING(100) NOT NULL,
  came_at TIMESTAMP NOT NULL,
  paid_with STRING(32),
) PRIMARY KEY (payment_no);

--changeset example:001-order
CREATE TABLE `order` (
  order_no STRING(36) NOT NULL,
  paid_with STRING(32),
) PRIMARY KEY (order_no);

--changeset example:001-changes
CREATE CHANGE STREAM shop_changes
  FOR sales.payments, sales.`order`, `order`
  OPTIONS (retention_period = '7d', value_capture_type = 'NEW_ROW_AND_OLD_VALUES');
