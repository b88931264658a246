-- Captures, voids, refunds, disputes.

-- Events, entries, deliveries and idempotency keys may be about other things than payments.
ALTER TABLE events RENAME COLUMN payment_id TO subject_id;
ALTER TABLE deliveries RENAME COLUMN payment_id TO subject_id;
ALTER TABLE postings RENAME COLUMN payment_id TO subject_id;
ALTER TABLE claims RENAME COLUMN payment_id TO subject_id;

ALTER TABLE payments ADD COLUMN capture_method  TEXT NOT NULL DEFAULT 'automatic';
ALTER TABLE payments ADD COLUMN capturing_minor INTEGER NOT NULL DEFAULT 0 CHECK (capturing_minor BETWEEN 0 AND amount_minor - captured_minor);
ALTER TABLE payments ADD COLUMN refunding_minor INTEGER NOT NULL DEFAULT 0 CHECK (refunding_minor >= 0);
ALTER TABLE payments ADD COLUMN refunded_minor  INTEGER NOT NULL DEFAULT 0 CHECK (refunded_minor >= 0 AND refunded_minor + refunding_minor <= captured_minor);
ALTER TABLE payments ADD COLUMN disputed_minor  INTEGER NOT NULL DEFAULT 0 CHECK (disputed_minor >= 0);
ALTER TABLE payments ADD COLUMN dispute_status  TEXT;
ALTER TABLE payments ADD COLUMN ending          TEXT;

-- Captures and refunds. The id is our reference at the provider.
CREATE TABLE operations (
  id               TEXT PRIMARY KEY,
  kind             TEXT NOT NULL,
  payment_id       TEXT NOT NULL,
  merchant_id      TEXT NOT NULL,
  provider         TEXT NOT NULL,
  charge_reference TEXT NOT NULL,
  amount_minor     INTEGER NOT NULL CHECK (amount_minor > 0),
  currency         TEXT NOT NULL,
  final            INTEGER NOT NULL,
  state            TEXT NOT NULL,
  provider_id      TEXT,
  response_code    TEXT,
  failure_reason   TEXT,
  note             TEXT,
  inquiries        INTEGER NOT NULL,
  due_at_ms        INTEGER,
  created_at_ms    INTEGER NOT NULL,
  updated_at_ms    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX operations_due ON operations (provider, due_at_ms) WHERE due_at_ms IS NOT NULL;
CREATE INDEX operations_of ON operations (payment_id, id);
CREATE INDEX refunds_of_merchant ON operations (merchant_id, id) WHERE kind = 'refund';

CREATE TABLE disputes (
  id             TEXT PRIMARY KEY,
  provider_id    TEXT NOT NULL,
  provider       TEXT NOT NULL,
  payment_id     TEXT NOT NULL,
  merchant_id    TEXT NOT NULL,
  reason         TEXT NOT NULL,
  status         TEXT NOT NULL,
  amount_minor   INTEGER NOT NULL,
  currency       TEXT NOT NULL,
  respond_by_ms  INTEGER NOT NULL,
  inquiries      INTEGER NOT NULL,
  due_at_ms      INTEGER,
  created_at_ms  INTEGER NOT NULL,
  updated_at_ms  INTEGER NOT NULL,
  UNIQUE (provider, provider_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX disputes_due ON disputes (provider, due_at_ms) WHERE due_at_ms IS NOT NULL;
CREATE INDEX disputes_of ON disputes (payment_id, id);
CREATE INDEX disputes_of_merchant ON disputes (merchant_id, id);

-- What moved money, as the merchant sees it. Views, so that no status is written twice. Ids sort by time.
DROP VIEW transactions;
CREATE VIEW transactions AS
  SELECT transaction_id AS id, id AS payment_id, merchant_id, 'payment' AS type, method, amount_minor, currency, status, created_at_ms, updated_at_ms
  FROM payments
  UNION ALL
  SELECT 'txn_' || substr(id, 5), payment_id, merchant_id, 'refund', provider, amount_minor, currency, state, created_at_ms, updated_at_ms
  FROM operations WHERE kind = 'refund'
  UNION ALL
  SELECT 'txn_' || substr(id, 5), payment_id, merchant_id, 'chargeback', provider, amount_minor, currency, status, created_at_ms, updated_at_ms
  FROM disputes WHERE status NOT LIKE 'warning%';
