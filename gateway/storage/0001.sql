-- Ids are made in time order, so rows append to the right edge of each tree; WITHOUT ROWID saves a second tree.

CREATE TABLE meta (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE payments (
  id             TEXT PRIMARY KEY,
  version        INTEGER NOT NULL,
  merchant_id    TEXT NOT NULL,
  order_id       TEXT NOT NULL,
  method         TEXT NOT NULL,
  amount_minor   INTEGER NOT NULL CHECK (amount_minor > 0),
  currency       TEXT NOT NULL,
  status         TEXT NOT NULL,
  transaction_id TEXT NOT NULL,
  captured_minor INTEGER NOT NULL CHECK (captured_minor BETWEEN 0 AND amount_minor),
  sequence       INTEGER NOT NULL,          -- number of the last event
  failure_reason TEXT,
  decline_code   TEXT,
  next_action    TEXT,                      -- JSON
  details        TEXT NOT NULL,             -- JSON, never changes
  created_at_ms  INTEGER NOT NULL,
  updated_at_ms  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The reference starts with the payment's id, so that a payment's attempts are neighbours.
CREATE TABLE attempts (
  reference      TEXT PRIMARY KEY,
  payment_id     TEXT NOT NULL,
  provider       TEXT NOT NULL,
  state          TEXT NOT NULL,
  amount_minor   INTEGER NOT NULL,
  currency       TEXT NOT NULL,
  provider_id    TEXT,
  response_code  TEXT,
  inquiries      INTEGER NOT NULL,
  due_at_ms      INTEGER,
  expires_at_ms  INTEGER NOT NULL,
  unknown_at_ms  INTEGER,
  resolved_at_ms INTEGER,
  created_at_ms  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX attempts_due ON attempts (provider, due_at_ms) WHERE due_at_ms IS NOT NULL;

-- A payment is a money movement of its own; refunds and chargebacks will join here. A view, so that no status is written twice.
CREATE VIEW transactions AS
  SELECT transaction_id AS id, id AS payment_id, merchant_id, 'payment' AS type, amount_minor, currency, status, created_at_ms, updated_at_ms
  FROM payments;

CREATE TABLE cards (
  token          TEXT PRIMARY KEY,
  merchant_id    TEXT NOT NULL,
  sealed         BLOB NOT NULL,             -- nonce, AES-256-GCM ciphertext, tag
  created_at_ms  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The ledger: append-only, a line is never updated.
CREATE TABLE postings (
  entry_id       TEXT NOT NULL,
  line           INTEGER NOT NULL,
  payment_id     TEXT NOT NULL,
  account        TEXT NOT NULL,
  currency       TEXT NOT NULL,
  debit_minor    INTEGER NOT NULL,
  credit_minor   INTEGER NOT NULL,
  created_at_ms  INTEGER NOT NULL,
  PRIMARY KEY (entry_id, line)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
  payment_id     TEXT NOT NULL,
  sequence       INTEGER NOT NULL,
  id             TEXT NOT NULL,
  merchant_id    TEXT NOT NULL,
  type           TEXT NOT NULL,
  body           BLOB,                      -- the webhook's bytes, NULL if the event is not published
  created_at_ms  INTEGER NOT NULL,
  PRIMARY KEY (payment_id, sequence)
) STRICT, WITHOUT ROWID;

-- The outbox.
CREATE TABLE deliveries (
  endpoint_id    TEXT NOT NULL,
  payment_id     TEXT NOT NULL,
  sequence       INTEGER NOT NULL,
  event_id       TEXT NOT NULL,
  state          TEXT NOT NULL,
  tries          INTEGER NOT NULL,
  due_at_ms      INTEGER,
  last_error     TEXT,
  PRIMARY KEY (endpoint_id, payment_id, sequence)
) STRICT, WITHOUT ROWID;
CREATE INDEX deliveries_due ON deliveries (endpoint_id, due_at_ms) WHERE due_at_ms IS NOT NULL;

-- Idempotency keys. With a rowid, so that old claims are found at the left edge.
CREATE TABLE claims (
  merchant_id     TEXT NOT NULL,
  key             TEXT NOT NULL,
  fingerprint     BLOB NOT NULL,
  payment_id      TEXT NOT NULL,
  response_status INTEGER,
  response_body   BLOB,
  created_at_ms   INTEGER NOT NULL,
  UNIQUE (merchant_id, key)
) STRICT;
