-- What a merchant gets for a day, in one currency. A day has one settlement, however often it is asked for.
CREATE TABLE settlements (
  id             TEXT PRIMARY KEY,
  version        INTEGER NOT NULL,
  merchant_id    TEXT NOT NULL,
  date           TEXT NOT NULL,             -- the merchant's local day
  timezone       TEXT NOT NULL,
  currency       TEXT NOT NULL,
  until_ms       INTEGER NOT NULL,          -- when that day ended
  state          TEXT NOT NULL,
  reason         TEXT,
  sequence       INTEGER NOT NULL,          -- number of the last event
  lines          TEXT NOT NULL,             -- JSON: captured, fees, refunds, chargebacks of each provider
  opening_minor  INTEGER NOT NULL CHECK (opening_minor <= 0),
  net_minor      INTEGER NOT NULL,
  payouts        INTEGER NOT NULL,          -- how many were ordered, each under a reference of its own
  payee          TEXT,                      -- JSON: the account that the last one went to
  provider_id    TEXT,
  utr            TEXT,
  inquiries      INTEGER NOT NULL,
  due_at_ms      INTEGER,
  created_at_ms  INTEGER NOT NULL,
  updated_at_ms  INTEGER NOT NULL,
  UNIQUE (merchant_id, date, currency)
) STRICT, WITHOUT ROWID;
CREATE INDEX settlements_due ON settlements (due_at_ms) WHERE due_at_ms IS NOT NULL;

-- The settlement that an entry of the ledger is in: the key says that there is no second one. Postings are never updated.
CREATE TABLE settled_entries (
  entry_id       TEXT PRIMARY KEY,
  settlement_id  TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX entries_of_settlement ON settled_entries (settlement_id, entry_id);
