
DECLARE
	most constant bigint := 10000;
	kept timestamptz := now() - greatest(coalesce(keep, '30 days'), '30 days');
	first_id uuid := (lpad(to_hex(floor(extract(epoch FROM kept) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;
	part regclass;
	closed boolean;
	oldest uuid;
	newest uuid;
	span bigint; -- in milliseconds
	done bigint;
	pruned bigint := 0;
BEGIN
	FOR part, closed IN
		SELECT 'auth.audit_events'::regclass, false
		UNION ALL
		SELECT h.inhrelid, true FROM pg_inherits h WHERE h.inhparent = 'auth.audit_events'::regclass
	LOOP
		EXECUTE format('SELECT e.id FROM ONLY %s e ORDER BY e.id LIMIT 1', part) INTO oldest;
		EXECUTE format('SELECT e.id FROM ONLY %s e ORDER BY e.id DESC LIMIT 1', part) INTO newest;
		span := ('x' || left(replace(newest::text, '-', ''), 12))::bit(48)::bigint - ('x' || left(replace(oldest::text, '-', ''), 12))::bit(48)::bigint;
		CASE
		WHEN closed AND coalesce(newest < first_id, true) THEN
			BEGIN
				EXECUTE format('DROP TABLE %s', part);
			EXCEPTION WHEN lock_not_available THEN
				NULL; -- somebody reads the table
			END;
		WHEN oldest < first_id AND (NOT closed OR span > 3456000000) THEN -- 40 days
			EXECUTE format('DELETE FROM ONLY %1$s WHERE id = ANY (ARRAY(SELECT e.id FROM ONLY %1$s e WHERE e.id < $1 AND e.create_time < $2 ORDER BY e.id LIMIT $3))', part)
			USING first_id, kept, most - pruned;
			GET DIAGNOSTICS done = ROW_COUNT;
			pruned := pruned + done;
		ELSE
		END CASE;
		EXIT WHEN pruned >= most;
	END LOOP;
	RETURN pruned;
END
