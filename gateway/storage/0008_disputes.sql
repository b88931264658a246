-- What a merchant responds to a dispute, durable before the provider hears it; disputes are listed by status.
ALTER TABLE disputes ADD COLUMN responding     TEXT;
ALTER TABLE disputes ADD COLUMN evidence       TEXT;
ALTER TABLE disputes ADD COLUMN failure_reason TEXT;
CREATE INDEX disputes_by_status ON disputes (merchant_id, status, id);
