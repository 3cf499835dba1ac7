--liquibase formatted sql

--changeset example:001-transfers
CREATE TABLE transfers (
  transfer_no INT64 NOT NULL,
  customer_id STRING(64),
  clerk STRING(64),
  branch STRING(32) NOT NULL,
  cents INT64,
  iso_currency STRING(3),
  from_pan STRING(32),
  payer STRING(128),
  good_thru STRING(7),
  remark STRING(200),
  phase STRING(50),
  phase_since TIMESTAMP,
  attempts INT64,
  why_refused STRING(500),
  `order` STRING(32),
  change_id STRING(32),
  newest BOOL,
  urgent BOOL NOT NULL,
  fee FLOAT64 NOT NULL,
  value_date DATE NOT NULL,
  touched TIMESTAMP OPTIONS (allow_commit_timestamp = true),
) PRIMARY KEY (transfer_no);

--changeset example:001-transfer-changes
CREATE CHANGE STREAM TransferChanges
  FOR transfers
  OPTIONS (retention_period = '7d', value_capture_type = 'NEW_ROW_AND_OLD_VALUES');
