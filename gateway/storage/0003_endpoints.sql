-- Webhook endpoints come and go at run time. A deleted one keeps its row, without secrets: its deliveries are still somebody's.
CREATE TABLE endpoints (
  id                  TEXT PRIMARY KEY,
  merchant_id         TEXT NOT NULL,
  url                 TEXT NOT NULL,
  events              TEXT NOT NULL,        -- JSON
  description         TEXT,
  state               TEXT NOT NULL,
  secret              BLOB NOT NULL,        -- nonce, AES-256-GCM ciphertext, tag
  old_secret          BLOB,
  old_secret_until_ms INTEGER,
  configured          BLOB,
  created_at_ms       INTEGER NOT NULL,
  updated_at_ms       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX endpoints_of_merchant ON endpoints (merchant_id, id);

-- The latest tries, JSON. In the delivery's own row, which a try writes anyway.
ALTER TABLE deliveries ADD COLUMN log TEXT;
CREATE INDEX deliveries_dead ON deliveries (endpoint_id, subject_id, sequence) WHERE state = 'dead';

-- What merchants list, newest first. Not what is history only.
CREATE INDEX events_of_merchant ON events (merchant_id, created_at_ms, subject_id, sequence) WHERE body IS NOT NULL;
