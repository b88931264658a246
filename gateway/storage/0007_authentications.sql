-- 3-D Secure. One for a payment at most; its id is our reference at the provider.
CREATE TABLE authentications (
  id                  TEXT PRIMARY KEY,
  payment_id          TEXT NOT NULL,
  provider            TEXT NOT NULL,
  state               TEXT NOT NULL,
  amount_minor        INTEGER NOT NULL,
  currency            TEXT NOT NULL,
  decline_code        TEXT NOT NULL,        -- the issuer's, which led here
  trans_id            TEXT,
  trans_status        TEXT,
  trans_status_reason TEXT,
  eci                 TEXT,
  url                 TEXT,
  inquiries           INTEGER NOT NULL,
  due_at_ms           INTEGER,
  expires_at_ms       INTEGER NOT NULL,
  created_at_ms       INTEGER NOT NULL,
  updated_at_ms       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX authentications_due ON authentications (provider, due_at_ms) WHERE due_at_ms IS NOT NULL;
