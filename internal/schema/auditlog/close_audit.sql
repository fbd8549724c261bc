
DECLARE
	month date := date_trunc('month', now() AT TIME ZONE 'UTC');
	first_id uuid := (lpad(to_hex((extract(epoch FROM month::timestamp AT TIME ZONE 'UTC') * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;
	closed name := 'audit_events_' || to_char(month - 1, 'YYYY_MM');
	old regclass := 'auth.audit_events';
	options text;
	indexes text[];
	grants text[];
	line text;
	part regclass;
BEGIN
	IF to_regclass(format('auth.%I', closed)) IS NOT NULL
		OR NOT EXISTS (SELECT FROM ONLY auth.audit_events e WHERE e.id < first_id) THEN
		RETURN NULL;
	END IF;
	LOCK TABLE ONLY auth.audit_events IN ACCESS EXCLUSIVE MODE;
	IF to_regclass(format('auth.%I', closed)) IS NOT NULL THEN
		RETURN NULL;
	END IF;
	old := 'auth.audit_events'; -- another process may have closed it during the wait
	-- Everybody who writes events waits now.
	FOR part IN SELECT h.inhrelid FROM pg_inherits h WHERE h.inhparent = old LOOP
		EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE NOWAIT', part);
	END LOOP;

	SELECT array_to_string(c.reloptions, ', ') INTO options FROM pg_class c WHERE c.oid = old;
	SELECT array_agg(coalesce('ALTER TABLE auth.audit_events ADD CONSTRAINT ' || quote_ident(k.conname) || ' ' || pg_get_constraintdef(k.oid), pg_get_indexdef(i.indexrelid)) ORDER BY i.indexrelid)
	INTO indexes
	FROM pg_index i LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = old
	WHERE i.indrelid = old AND i.indisvalid;
	SELECT array_agg(format('%s%s ON auth.audit_events', g.privilege_type, g.columns) || ' %s '
		|| CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END)
	INTO grants
	FROM (
		SELECT a.privilege_type, '' AS columns, a.grantee, c.relowner FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = old
		UNION ALL
		SELECT a.privilege_type, format(' (%I)', t.attname), a.grantee, c.relowner
		FROM pg_attribute t JOIN pg_class c ON c.oid = t.attrelid, aclexplode(t.attacl) a
		WHERE t.attrelid = old AND NOT t.attisdropped
	) g
	WHERE g.grantee <> g.relowner;

	FOREACH line IN ARRAY coalesce(grants, '{}') LOOP
		EXECUTE 'REVOKE ' || format(line, 'FROM');
	END LOOP;
	FOR line IN SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = old LOOP
		EXECUTE format('ALTER INDEX auth.%I RENAME TO %I', line, replace(line, 'audit_events', closed));
	END LOOP;
	EXECUTE format('ALTER TABLE auth.audit_events RENAME TO %I', closed);
	EXECUTE format('CREATE TABLE auth.audit_events (LIKE auth.%I INCLUDING ALL EXCLUDING INDEXES)', closed);
	IF options <> '' THEN
		EXECUTE format('ALTER TABLE auth.audit_events SET (%s)', options);
	END IF;
	FOREACH line IN ARRAY coalesce(indexes, '{}') LOOP
		EXECUTE line;
	END LOOP;
	FOREACH line IN ARRAY coalesce(grants, '{}') LOOP
		EXECUTE 'GRANT ' || format(line, 'TO');
	END LOOP;
	FOR part IN SELECT h.inhrelid FROM pg_inherits h WHERE h.inhparent = old LOOP
		EXECUTE format('ALTER TABLE %s NO INHERIT %s', part, old);
		EXECUTE format('ALTER TABLE %s INHERIT auth.audit_events', part);
	END LOOP;
	EXECUTE format('ALTER TABLE auth.%I INHERIT auth.audit_events', closed);
	RETURN closed;
END
