-- How one job moves. `th` stands for the schema.

CREATE FUNCTION th.clock(p_now double precision) RETURNS double precision
LANGUAGE sql VOLATILE AS $$
    SELECT coalesce(p_now, extract(epoch FROM clock_timestamp())::double precision)
$$;

CREATE FUNCTION th.count(p_queue text, p_state text, p_jobs bigint) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO th.counts (queue, state, jobs) VALUES (p_queue, p_state, p_jobs)
$$;

-- Tell those who listen that `p_topics` ("w:<queue>", "d:<job id>") have news, after the commit.
CREATE FUNCTION th.tell(p_topics text[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('th', topic) FROM (SELECT DISTINCT unnest(p_topics) AS topic) t;
END $$;

-- Put a job that stands nowhere in line; its new state.
CREATE FUNCTION th.to_line(job th.jobs, p_now double precision, p_due double precision,
    p_reason text, p_expires double precision) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
    IF p_due > p_now THEN
        INSERT INTO th.scheduled (seq, wake_at, reason)
        VALUES (job.seq, least(p_due, p_expires), p_reason);
        PERFORM th.count(job.queue, 'scheduled', 1);
        RETURN 'scheduled';
    END IF;
    INSERT INTO th.ready (queue, rank, seq, expires_at, ready_at, reason)
    VALUES (job.queue, -job.priority, job.seq, p_expires, p_now, p_reason);
    PERFORM th.count(job.queue, 'ready', 1);
    PERFORM th.tell(ARRAY['w:' || job.queue]);
    RETURN 'ready';
END $$;

-- Remove all that is stored of a job which stands nowhere any more.
CREATE FUNCTION th.forget(p_seqs bigint[]) RETURNS void
LANGUAGE sql AS $$
    DELETE FROM th.carried WHERE seq = ANY (p_seqs);
    DELETE FROM th.attempts WHERE seq = ANY (p_seqs);
    DELETE FROM th.keys k USING th.jobs j
    WHERE j.seq = ANY (p_seqs) AND k.queue = j.queue AND k.key = j.key AND k.seq = j.seq;
    DELETE FROM th.jobs WHERE seq = ANY (p_seqs);
$$;

-- End a job that stands nowhere; false when nothing is kept of it.
CREATE FUNCTION th.to_end(job th.jobs, p_now double precision, p_state text, p_reason text,
    p_attempts integer, p_fence bigint, p_holder text, p_reserved_at double precision, p_result bytea)
RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    keep double precision := CASE p_state WHEN 'succeeded' THEN job.keep_succeeded
        WHEN 'cancelled' THEN job.keep_cancelled ELSE job.keep_dead END;
BEGIN
    PERFORM th.tell(ARRAY['d:' || job.id]);
    IF keep <= 0 THEN
        PERFORM th.forget(ARRAY[job.seq]);
        RETURN false;
    END IF;
    INSERT INTO th.ended
        (seq, state, reason, finished_at, prune_at, attempts, fence, holder, reserved_at, result)
    VALUES (job.seq, p_state, p_reason, p_now, p_now + keep, p_attempts, p_fence, p_holder,
        p_reserved_at, p_result);
    IF job.key_seconds = -1 THEN
        DELETE FROM th.keys WHERE queue = job.queue AND key = job.key AND seq = job.seq;
    END IF;
    PERFORM th.count(job.queue, p_state, 1);
    RETURN true;
END $$;

-- Cancel a waiting job; it must be locked. False when it does not wait.
CREATE FUNCTION th.cancel_waiting(job th.jobs, p_now double precision, p_reason text)
RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    was text;
BEGIN
    DELETE FROM th.ready WHERE queue = job.queue AND rank = -job.priority AND seq = job.seq;
    IF FOUND THEN
        was := 'ready';
    ELSE
        DELETE FROM th.scheduled WHERE seq = job.seq;
        IF NOT FOUND THEN
            RETURN false;
        END IF;
        was := 'scheduled';
    END IF;
    PERFORM th.count(job.queue, was, -1);
    PERFORM th.to_end(job, p_now, 'cancelled', p_reason,
        coalesce((SELECT attempts FROM th.carried WHERE seq = job.seq), 0),
        NULL, NULL, NULL, NULL);
    RETURN true;
END $$;
