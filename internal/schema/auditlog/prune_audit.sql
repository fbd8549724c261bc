
DECLARE
	most constant bigint := 10000;
	-- No event is older than the epoch, before which an id has no time.
	kept timestamptz := greatest(now() - least(greatest(coalesce(keep, '30 days'), '30 days'), '1000 years'), 'epoch'::timestamptz);
	first_id uuid := (lpad(to_hex(floor(extract(epoch FROM kept) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;
	part regclass;
	closed boolean;
	oldest uuid;
	newest uuid;
	span bigint; -- in milliseconds
	expired boolean;
	done bigint;
	pruned bigint := 0;
BEGIN
	FOR part, closed IN
		SELECT 'auth.audit_events'::regclass, false
		UNION ALL
		SELECT h.inhrelid, true FROM pg_inherits h WHERE h.inhparent = 'auth.audit_events'::regclass
	LOOP
		BEGIN
			EXECUTE format('SELECT e.id FROM ONLY %s e ORDER BY e.id LIMIT 1', part) INTO oldest;
			EXECUTE format('SELECT e.id FROM ONLY %s e ORDER BY e.id DESC LIMIT 1', part) INTO newest;
			span := ('x' || left(replace(newest::text, '-', ''), 12))::bit(48)::bigint - ('x' || left(replace(oldest::text, '-', ''), 12))::bit(48)::bigint;
			CASE
			WHEN closed AND coalesce(newest < first_id, true) THEN
				-- A second check, which does not depend on first_id.
				EXECUTE format('SELECT coalesce(max(n.create_time) < $1, true) FROM (SELECT e.create_time FROM ONLY %s e ORDER BY e.id DESC LIMIT 1000) n', part)
				INTO expired USING kept;
				IF expired THEN
					EXECUTE format('DROP TABLE %s', part);
				END IF;
			WHEN oldest < first_id AND (NOT closed OR span > 3456000000) THEN -- 40 days
				EXECUTE format('DELETE FROM ONLY %1$s WHERE id = ANY (ARRAY(SELECT e.id FROM ONLY %1$s e WHERE e.id < $1 AND e.create_time < $2 ORDER BY e.id LIMIT $3))', part)
				USING first_id, kept, most - pruned;
				GET DIAGNOSTICS done = ROW_COUNT;
				pruned := pruned + done;
			ELSE
			END CASE;
		EXCEPTION WHEN lock_not_available OR dependent_objects_still_exist THEN
			-- Somebody reads the table, or created a view on it. The other tables are pruned.
			RAISE WARNING 'prune_audit: % is not pruned: %', part, SQLERRM;
		END;
		EXIT WHEN pruned >= most;
	END LOOP;
	RETURN pruned;
END
