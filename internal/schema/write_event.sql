DECLARE
	kinds text[] := '{}';
	kind text;
	ids jsonb := '{}';
	account uuid;
	latest bigint;
BEGIN
	IF NOT EXISTS (SELECT FROM auth.webhooks w WHERE w.enabled) THEN
		RETURN NULL;
	END IF;
	IF TG_TABLE_NAME = 'accounts' THEN
		IF TG_OP = 'DELETE' THEN
			account := OLD.id; latest := OLD.version + 1; kinds := '{user.deleted}';
		ELSIF TG_OP = 'INSERT' THEN
			account := NEW.id; kinds := '{user.created}';
			IF NEW.email_verified THEN kinds := kinds || 'user.verified'::text; END IF;
		ELSE
			account := NEW.id;
			IF NEW.email <> OLD.email THEN kinds := kinds || 'user.email_changed'::text; END IF;
			IF NEW.email_verified AND NOT OLD.email_verified THEN kinds := kinds || 'user.verified'::text; END IF;
			IF NEW.status <> OLD.status AND NEW.status = 'disabled' THEN kinds := kinds || 'user.disabled'::text; END IF;
			IF NEW.status <> OLD.status AND NEW.status = 'active' THEN kinds := kinds || 'user.enabled'::text; END IF;
			IF NEW.roles <> OLD.roles THEN kinds := kinds || 'user.roles_changed'::text; END IF;
		END IF;
	ELSIF TG_TABLE_NAME = 'sessions' THEN
		account := NEW.account_id; ids := jsonb_build_object('sessionId', NEW.id);
		IF TG_OP = 'INSERT' THEN
			kinds := '{session.created}';
		ELSIF NEW.revoke_time IS NOT NULL AND OLD.revoke_time IS NULL THEN
			kinds := '{session.ended}';
		END IF;
	ELSIF TG_TABLE_NAME = 'totp_factors' THEN
		ids := '{"factor": "totp"}';
		IF TG_OP = 'DELETE' THEN
			account := OLD.account_id; kinds := '{factor.removed}';
		ELSE
			account := NEW.account_id; kinds := '{factor.added}';
		END IF;
	ELSIF TG_TABLE_NAME = 'passkeys' THEN
		IF TG_OP = 'DELETE' THEN
			account := OLD.account_id; kinds := '{factor.removed}'; ids := jsonb_build_object('factor', 'passkey', 'passkeyId', OLD.id);
		ELSE
			account := NEW.account_id; kinds := '{factor.added}'; ids := jsonb_build_object('factor', 'passkey', 'passkeyId', NEW.id);
		END IF;
	ELSIF TG_TABLE_NAME = 'identities' THEN
		IF TG_OP = 'DELETE' THEN
			account := OLD.account_id; kinds := '{identity.unlinked}'; ids := jsonb_build_object('identityId', OLD.id, 'provider', OLD.provider);
		ELSE
			account := NEW.account_id; kinds := '{identity.linked}'; ids := jsonb_build_object('identityId', NEW.id, 'provider', NEW.provider);
		END IF;
	ELSIF TG_TABLE_NAME = 'api_keys' THEN
		IF TG_OP = 'INSERT' THEN
			account := NEW.account_id; kinds := '{apikey.created}'; ids := jsonb_build_object('keyId', NEW.id);
		ELSIF TG_OP = 'DELETE' THEN
			account := OLD.account_id; ids := jsonb_build_object('keyId', OLD.id);
			IF OLD.revoke_time IS NULL AND OLD.expire_time > now() THEN kinds := '{apikey.revoked}'; END IF;
		ELSE
			account := NEW.account_id; ids := jsonb_build_object('keyId', NEW.id);
			IF NEW.revoke_time IS NOT NULL AND OLD.revoke_time IS NULL THEN kinds := '{apikey.revoked}'; END IF;
		END IF;
	END IF;
	IF kinds = '{}' THEN
		RETURN NULL;
	END IF;
	-- The events of one account are written in the order of the commits: this lock is held
	-- until that, and what follows sees what the holder before has committed. The rows are
	-- locked already, so that no transaction waits for rows while it holds this lock. Only
	-- one statement of auth may hold the locks of several accounts: two could wait for each
	-- other, and many locks fill Postgres' table. It is pruneAttachedKeys, in batches.
	PERFORM pg_advisory_xact_lock(hashtextextended('gatehouse events ' || account, 0));
	IF latest IS NULL THEN
		SELECT a.version INTO latest FROM auth.accounts a WHERE a.id = account;
		IF latest IS NULL THEN
			RETURN NULL; -- user.deleted says it
		END IF;
	END IF;
	FOREACH kind IN ARRAY kinds LOOP
		WITH wanted AS MATERIALIZED (
			SELECT w.id FROM auth.webhooks w
			WHERE w.enabled AND kind = ANY (w.types) AND (w.expire_time IS NULL OR w.expire_time > clock_timestamp())
			FOR KEY SHARE OF w
		), written AS (
			INSERT INTO auth.events (type, account_id, version, data)
			SELECT kind, account, latest, jsonb_build_object('userId', account, 'version', latest) || ids
			WHERE EXISTS (SELECT FROM wanted)
			RETURNING id, create_time
		)
		INSERT INTO auth.deliveries (event_id, webhook_id, account_id, event_time)
		-- Postgres' clock may step back, for example with a failover.
		SELECT written.id, wanted.id, account, greatest(written.create_time, (
			SELECT max(d.event_time) + interval '1 microsecond' FROM auth.deliveries d
			WHERE d.webhook_id = wanted.id AND d.account_id = account AND d.sent_time IS NULL AND d.fail_time IS NULL))
		FROM written CROSS JOIN wanted;
	END LOOP;
	RETURN NULL;
END
