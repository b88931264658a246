-- Pages of transactions, newest first: a range of one index on each part of the view. The id, which ends each of them, breaks ties.
CREATE INDEX payments_of_merchant ON payments (merchant_id, created_at_ms);
DROP INDEX refunds_of_merchant;
CREATE INDEX refunds_of_merchant ON operations (merchant_id, created_at_ms) WHERE kind = 'refund';
CREATE INDEX disputes_by_time ON disputes (merchant_id, created_at_ms);

-- A merchant's ledger by time, for reports and settlement. Only what merchants are owed: the other accounts are not asked so, and a
-- payment that completes pays for one row here instead of three. A query has to repeat the condition to be given this index.
CREATE INDEX postings_of_merchant ON postings (account, created_at_ms) WHERE account >= 'payable:' AND account < 'payable;';
