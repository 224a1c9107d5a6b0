-- Attempts that share a transaction with what their task writes. `th` stands for the schema.
--
-- An attempt begins with begin_attempt and ends, if it succeeds, with settle_attempt, as the last
-- statement of the same transaction. In between no lock is held here: the lease is extended, lost or
-- settled by others as ever, and settle_attempt finds out. From there to the commit the deleted lease
-- row holds up whoever else wants to settle this job, so that exactly one of them does.

-- Whether this lease may still run: verdict applied, and the number of the transaction.
CREATE FUNCTION th.begin_attempt(p_now double precision, p_id text, p_fence bigint,
    OUT verdict text, OUT xact xid8)
LANGUAGE plpgsql AS $$
DECLARE
    ends double precision;
BEGIN
    SELECT expires_at INTO ends FROM th.leases
    WHERE seq = (SELECT seq FROM th.jobs WHERE id = p_id) AND fence = p_fence;
    IF NOT FOUND THEN
        SELECT o.verdict INTO verdict
        FROM th.judge_without_lease(p_id, p_fence, th.clock(p_now), false) o;
    ELSIF th.clock(p_now) >= ends THEN
        verdict := 'expired';
    ELSE
        verdict := 'applied';
        xact := pg_current_xact_id();
    END IF;
END $$;

-- Settle as succeeded, or raise, so that the transaction can only be rolled back:
--   TH001  this is another transaction than `p_xact`, in which the attempt began
--   TH002  its isolation is not READ COMMITTED: it would not see that the lease was lost meanwhile
--   TH003  the lease has lost its right; DETAIL has the verdict
CREATE FUNCTION th.settle_attempt(p_now double precision, p_xact xid8, p_id text, p_fence bigint,
    p_result bytea) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    said text[];
BEGIN
    IF pg_current_xact_id_if_assigned() IS DISTINCT FROM p_xact THEN
        RAISE EXCEPTION 'not the transaction in which the attempt began' USING ERRCODE = 'TH001';
    ELSIF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'the transaction is not READ COMMITTED' USING ERRCODE = 'TH002';
    END IF;
    SELECT e.verdicts INTO said FROM th.exchange(p_now, '', true, ARRAY[p_id], ARRAY[p_fence],
        ARRAY[p_result], NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '{}', NULL, NULL) e;
    IF said[1] <> 'applied' THEN
        RAISE EXCEPTION 'the settle was refused' USING ERRCODE = 'TH003', DETAIL = said[1];
    END IF;
END $$;
