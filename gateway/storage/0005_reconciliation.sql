-- What providers owe us, by time: what a settlement file is compared with. Only those postings; a query has to repeat the condition to be
-- given this index.
CREATE INDEX postings_of_provider ON postings (account, created_at_ms) WHERE account >= 'receivable:' AND account < 'receivable;';

-- One run per provider and day: the same day again is the same run.
CREATE TABLE reconciliations (
  id                  TEXT PRIMARY KEY,
  provider            TEXT NOT NULL,
  date                TEXT NOT NULL,        -- YYYY-MM-DD, UTC
  format              TEXT NOT NULL,
  source              TEXT NOT NULL,
  state               TEXT NOT NULL,
  error               TEXT,
  rows                INTEGER NOT NULL,
  movements           INTEGER NOT NULL,
  matched             INTEGER NOT NULL,
  amount_mismatch     INTEGER NOT NULL,
  missing_in_provider INTEGER NOT NULL,
  missing_in_gateway  INTEGER NOT NULL,
  duplicate           INTEGER NOT NULL,
  late                INTEGER NOT NULL,
  uncovered           INTEGER NOT NULL,
  runs                INTEGER NOT NULL,
  created_at_ms       INTEGER NOT NULL,
  updated_at_ms       INTEGER NOT NULL,
  UNIQUE (provider, date)
) STRICT, WITHOUT ROWID;

CREATE TABLE breaks (
  id                 TEXT PRIMARY KEY,
  run_id             TEXT NOT NULL,
  provider           TEXT NOT NULL,
  date               TEXT NOT NULL,
  kind               TEXT NOT NULL,
  status             TEXT NOT NULL,
  reference          TEXT NOT NULL,
  subject            TEXT NOT NULL,
  type               TEXT NOT NULL,
  currency           TEXT NOT NULL,
  expected_minor     INTEGER,
  actual_minor       INTEGER,
  expected_fee_minor INTEGER,
  actual_fee_minor   INTEGER,
  merchant_id        TEXT NOT NULL,         -- empty where the file names none of ours
  payment_id         TEXT,
  entry_id           TEXT,
  provider_id        TEXT,
  found_date         TEXT,
  resolved_by        TEXT,
  at_ms              INTEGER NOT NULL,
  created_at_ms      INTEGER NOT NULL,
  updated_at_ms      INTEGER NOT NULL,
  history            TEXT NOT NULL          -- JSON
) STRICT, WITHOUT ROWID;
CREATE INDEX breaks_by_date ON breaks (date, id);
CREATE INDEX breaks_open ON breaks (date, id) WHERE status = 'open';
CREATE INDEX breaks_of_merchant ON breaks (merchant_id, date, id);
CREATE INDEX breaks_of_day ON breaks (provider, ifnull(found_date, date));
CREATE INDEX breaks_of_reference ON breaks (provider, reference);
CREATE INDEX breaks_of_entry ON breaks (entry_id) WHERE entry_id IS NOT NULL;

-- Movements that belong into the file of another day than the one they were booked on: few, those around midnight.
CREATE TABLE carried (
  entry_id TEXT PRIMARY KEY,
  provider TEXT NOT NULL,
  date     TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX carried_to ON carried (provider, date);
