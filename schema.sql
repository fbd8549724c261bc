-- schema number: 9
--
-- The whole schema, declaratively: `gatehouse schema apply` (or the Atlas CLI
-- with atlas.hcl) changes a database to match it. Keys are UUIDv7, generated in
-- Go; times are timestamptz; every constraint has a name, because the code
-- matches it. No foreign key crosses the two schemas: each belongs to one service.
--
-- Raise the number above with every change of the tables. `schema apply` stores
-- it, and a binary with a smaller number then leaves the database alone. Atlas
-- neither reads nor creates partitions, functions, triggers, views, domains,
-- sequences, storage parameters or row security; internal/schema creates the
-- roles, the grants and the functions, and compares the storage parameters.

CREATE SCHEMA auth;
CREATE SCHEMA users;

-- auth ----------------------------------------------------------------------

CREATE TABLE auth.accounts (
    id                    uuid        NOT NULL,
    email                 text        NOT NULL,
    email_verified        boolean     NOT NULL DEFAULT false,
    -- Whether an administrator or an operator made the account: a second factor may be
    -- attached before its email is verified.
    vouched               boolean     NOT NULL DEFAULT false,
    -- Empty until the owner chooses a password: after an invitation or a forced reset.
    password_hash         text        NOT NULL,
    password_change_time  timestamptz NOT NULL DEFAULT now(),
    status                text        NOT NULL DEFAULT 'active',
    roles                 text[]      NOT NULL DEFAULT '{}',
    -- Raised by every change of roles or status; access tokens carry it as "ver".
    authz_version         bigint      NOT NULL DEFAULT 1,
    -- Raised by every change that other services must receive.
    version               bigint      NOT NULL DEFAULT 1,
    last_sign_in_time     timestamptz,
    create_time           timestamptz NOT NULL DEFAULT now(),
    update_time           timestamptz NOT NULL DEFAULT now(),
    -- Whether a password sign-in owes a second proof. While it does, the password's
    -- hash is in factor_password_hash, and password_hash has a decoy that no password
    -- matches, or is empty if there is no password: a binary older than number 8 would
    -- sign in by the password alone.
    second_factor         boolean     NOT NULL DEFAULT false,
    factor_password_hash  text        NOT NULL DEFAULT '',
    -- Whether the account has a way to sign in other than a password: a passkey, or
    -- an identity of another provider.
    has_sign_in           boolean     NOT NULL DEFAULT false,
    -- When the owner last got a mail about a wrong code after a right password.
    factor_alert_time     timestamptz,
    CONSTRAINT accounts_pkey PRIMARY KEY (id),
    CONSTRAINT accounts_email_length CHECK (char_length(email) BETWEEN 3 AND 254),
    CONSTRAINT accounts_status_known CHECK (status IN ('active', 'disabled')),
    -- It stops a binary older than number 8 from writing a hash that it would accept.
    CONSTRAINT accounts_decoy CHECK (NOT second_factor OR password_hash = '' OR password_hash LIKE '$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$%')
);
-- Emails that differ only in ASCII case are one account, whatever case folding
-- the database's locale has for an I; foldEmail does the same in Go.
CREATE UNIQUE INDEX accounts_email_fold_key ON auth.accounts (lower(email COLLATE "C"));
-- For binaries older than number 6; remove it with number 8.
CREATE UNIQUE INDEX accounts_email_key ON auth.accounts (lower(email));
-- Administrators are few. Each removal first checks that another one remains.
CREATE INDEX accounts_sign_in_admins_idx ON auth.accounts (id)
    WHERE status = 'active' AND 'admin' = ANY (roles) AND (password_hash <> '' OR has_sign_in);
-- For binaries older than number 8; remove it with number 9.
CREATE INDEX accounts_admins_idx ON auth.accounts (id)
    WHERE status = 'active' AND 'admin' = ANY (roles) AND password_hash <> '';

CREATE TABLE auth.sessions (
    id                    uuid        NOT NULL,
    account_id            uuid        NOT NULL,
    -- The current refresh token: its generation, hash, secret key and time.
    generation            integer     NOT NULL DEFAULT 1,
    token_hash            bytea       NOT NULL,
    token_key             text        NOT NULL,
    rotate_time           timestamptz NOT NULL DEFAULT now(),
    -- The hash of the Idempotency-Key that the client sent with the last rotation.
    idempotency_key_hash  bytea,
    -- When the user last gave a first proof, such as the password.
    authenticate_time     timestamptz NOT NULL DEFAULT now(),
    user_agent            text        NOT NULL DEFAULT '',
    ip_address            text        NOT NULL DEFAULT '',
    create_time           timestamptz NOT NULL DEFAULT now(),
    last_used_time        timestamptz NOT NULL DEFAULT now(),
    expire_time           timestamptz NOT NULL,
    max_expire_time       timestamptz NOT NULL,
    revoke_time           timestamptz,
    revoke_reason         text,
    -- The device that signed in, from its device token.
    device_id             uuid,
    -- The deployment's session_epoch when the session began.
    epoch                 bigint      NOT NULL DEFAULT 0,
    -- The janitor looks at the session on this day and not before: it deletes the
    -- session, or sets a later day. A refresh changes no indexed column, so that
    -- Postgres leaves the indexes alone (heap-only tuples).
    prune_date            date        NOT NULL DEFAULT CURRENT_DATE,
    -- The assurance level, and the methods of the proofs that it rests on (RFC 8176).
    level                 smallint    NOT NULL DEFAULT 1,
    amr                   text[]      NOT NULL DEFAULT '{pwd}',
    -- When the user last gave a second proof, or a passkey.
    second_factor_time    timestamptz,
    -- The OAuth client and the scopes of a grant; NULL and empty for a session of
    -- Gatehouse's own.
    client_id             text,
    scopes                text[]      NOT NULL DEFAULT '{}',
    -- The identity of another provider that the session began with.
    identity_id           uuid,
    CONSTRAINT sessions_pkey PRIMARY KEY (id),
    CONSTRAINT sessions_account_id_fkey FOREIGN KEY (account_id) REFERENCES auth.accounts (id) ON DELETE CASCADE,
    CONSTRAINT sessions_generation_positive CHECK (generation > 0),
    CONSTRAINT sessions_level_known CHECK (level IN (1, 2)),
    CONSTRAINT sessions_token_hash_length CHECK (octet_length(token_hash) = 32),
    CONSTRAINT sessions_revoke_reason_known CHECK ((revoke_time IS NULL) = (revoke_reason IS NULL))
)
-- The free space of a page takes the next versions of its rows.
WITH (fillfactor = 80);
-- Without last_used_time and expire_time, which change with each refresh.
CREATE INDEX sessions_live_idx ON auth.sessions (account_id) WHERE revoke_time IS NULL;
-- For the cascade of the foreign key, which also deletes ended sessions.
CREATE INDEX sessions_account_id_idx ON auth.sessions (account_id);
CREATE INDEX sessions_prune_date_idx ON auth.sessions (prune_date);
CREATE INDEX sessions_revoke_time_idx ON auth.sessions (revoke_time) WHERE revoke_time IS NOT NULL;

-- One row of state that all copies of auth share.
CREATE TABLE auth.deployment (
    -- Sessions of an earlier epoch have ended.
    session_epoch    bigint      NOT NULL DEFAULT 0,
    -- The token issuer (GATEHOUSE_PUBLIC_URL) of the copy that started last; empty
    -- before the first start.
    issuer           text        NOT NULL DEFAULT '',
    issuer_set_time  timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX deployment_one_row ON auth.deployment ((true));

-- The public key is published from the moment the row is written. The key with the
-- latest sign_time in the past signs; an older key is deleted once the last token
-- that it signed has expired.
CREATE TABLE auth.signing_keys (
    kid                 text        NOT NULL,
    public_key          bytea       NOT NULL,
    sealed_private_key  bytea       NOT NULL,
    create_time         timestamptz NOT NULL DEFAULT now(),
    sign_time           timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT signing_keys_pkey PRIMARY KEY (kid),
    CONSTRAINT signing_keys_public_key_length CHECK (octet_length(public_key) = 32)
);

-- The account log: one row for each account, with the version of its latest change.
-- A trigger on auth.accounts writes it, so that no change is missed, whichever version
-- of auth makes it. Readers poll for rows after their last position by xid, which,
-- unlike a sequence, misses no late commit. A deletion reduces the row to id and
-- version, which is deleted after a year.
CREATE TABLE auth.account_log (
    account_id   uuid        NOT NULL,
    xid          xid8        NOT NULL DEFAULT pg_current_xact_id(),
    version      bigint      NOT NULL,
    deleted      boolean     NOT NULL DEFAULT false,
    -- The initial profile, stored only until users has it.
    profile      jsonb,
    change_time  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT account_log_pkey PRIMARY KEY (account_id),
    CONSTRAINT account_log_erased CHECK (NOT deleted OR profile IS NULL)
);
CREATE INDEX account_log_xid_idx ON auth.account_log (xid, account_id);
CREATE INDEX account_log_deleted_xid_idx ON auth.account_log (xid, account_id) WHERE deleted;
CREATE INDEX account_log_profile_xid_idx ON auth.account_log (xid) WHERE profile IS NOT NULL;
-- For pruning.
CREATE INDEX account_log_deleted_change_time_idx ON auth.account_log (change_time) WHERE deleted;

-- The services that read the account log, and what each has confirmed.
CREATE TABLE auth.account_readers (
    service         text        NOT NULL,
    -- The cursor that the service has committed with the changes before it, and the
    -- snapshot of that cursor: the service has every change that is visible in it.
    cursor          text        NOT NULL DEFAULT '',
    seen            text        NOT NULL DEFAULT '1:1:',
    deletions_only  boolean     NOT NULL DEFAULT false,
    report_time     timestamptz NOT NULL DEFAULT now(),
    -- Until then, one copy of auth delivers to a service that does not read by itself:
    -- a users service older than number 7.
    lease_time      timestamptz NOT NULL DEFAULT '-infinity',
    CONSTRAINT account_readers_pkey PRIMARY KEY (service)
);

-- The outbox of a version of auth older than number 7, which writes and delivers
-- these rows. This version only reads and deletes them. Remove the table with number
-- 8.
CREATE TABLE auth.account_outbox (
    account_id         uuid        NOT NULL,
    version            bigint      NOT NULL,
    deleted            boolean     NOT NULL DEFAULT false,
    -- The initial profile, stored only until users has it.
    profile            jsonb,
    attempts           integer     NOT NULL DEFAULT 0,
    next_attempt_time  timestamptz NOT NULL,
    create_time        timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT account_outbox_pkey PRIMARY KEY (account_id)
);
CREATE INDEX account_outbox_next_attempt_time_idx ON auth.account_outbox (next_attempt_time);

-- Revoked access tokens: those of a session, or those of an account below a
-- version. Every copy of auth polls for rows after its last position by xid, which,
-- unlike a sequence, misses no late commit.
CREATE TABLE auth.revocations (
    id             uuid        NOT NULL DEFAULT gen_random_uuid(),
    xid            xid8        NOT NULL DEFAULT pg_current_xact_id(),
    session_id     uuid,
    account_id     uuid,
    least_version  bigint,
    -- When the last token that the row can affect has expired.
    expire_time    timestamptz NOT NULL,
    CONSTRAINT revocations_pkey PRIMARY KEY (id),
    CONSTRAINT revocations_one_kind CHECK ((session_id IS NULL) = (account_id IS NOT NULL AND least_version IS NOT NULL))
);
CREATE INDEX revocations_xid_idx ON auth.revocations (xid);
CREATE INDEX revocations_expire_time_idx ON auth.revocations (expire_time);

-- The change feed: recent changes, by the tags of the gateways' cache entries. A
-- row is written in the transaction of its change, and polled like the revocations.
CREATE TABLE auth.changes (
    id           uuid        NOT NULL DEFAULT gen_random_uuid(),
    xid          xid8        NOT NULL DEFAULT pg_current_xact_id(),
    tag          text        NOT NULL,
    create_time  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT changes_pkey PRIMARY KEY (id)
);
CREATE INDEX changes_xid_idx ON auth.changes (xid);
CREATE INDEX changes_create_time_idx ON auth.changes (create_time);

-- Mailed links. Each works once. The table stores the hash of the link's token.
CREATE TABLE auth.links (
    token_hash   bytea       NOT NULL,
    kind         text        NOT NULL,
    -- The address that the link was sent to, or that it confirms.
    email        text        NOT NULL,
    -- Set once the link's account is known.
    account_id   uuid,
    -- The initial profile of a new account.
    profile      jsonb,
    create_time  timestamptz NOT NULL DEFAULT now(),
    expire_time  timestamptz NOT NULL,
    -- When the link stopped working before expire_time, and why.
    end_time     timestamptz,
    end_reason   text,
    CONSTRAINT links_pkey PRIMARY KEY (token_hash),
    CONSTRAINT links_account_id_fkey FOREIGN KEY (account_id) REFERENCES auth.accounts (id) ON DELETE CASCADE,
    CONSTRAINT links_token_hash_length CHECK (octet_length(token_hash) = 32),
    CONSTRAINT links_kind_known CHECK (kind IN ('register', 'verify', 'invite', 'reset', 'email_change')),
    CONSTRAINT links_end_reason_known CHECK ((end_time IS NULL) = (end_reason IS NULL))
);
CREATE INDEX links_account_id_idx ON auth.links (account_id);
CREATE INDEX links_email_fold_idx ON auth.links (lower(email COLLATE "C"));
-- For binaries older than number 6; remove it with number 8.
CREATE INDEX links_email_idx ON auth.links (lower(email));
CREATE INDEX links_expire_time_idx ON auth.links (expire_time);

-- What is still owed before a session begins or changes its level, and what an
-- enrolment waits for. The table stores the hash of the challenge's token.
CREATE TABLE auth.challenges (
    token_hash            bytea       NOT NULL,
    -- A statement always names the purpose: a challenge of one purpose is none of
    -- another.
    purpose               text        NOT NULL,
    -- NULL while nobody is identified.
    account_id            uuid,
    -- The session that is to change; NULL if one is to begin.
    session_id            uuid,
    -- The device whose token was sent with the first proof, if it was the account's.
    device_id             uuid,
    -- The methods of the proofs that were given.
    amr                   text[]      NOT NULL DEFAULT '{}',
    -- Answers, counted before each is checked.
    tries                 integer     NOT NULL DEFAULT 0,
    -- What the purpose needs to remember, sealed.
    sealed_state          bytea,
    -- A hash of the Idempotency-Key and the answer that ended it, the session that
    -- the answer made or changed, and its generation then: a repetition gets the
    -- same tokens.
    idempotency_key_hash  bytea,
    made_session_id       uuid,
    made_generation       integer,
    -- The identity of another provider that was the first proof.
    identity_id           uuid,
    -- An identity to link once all proofs are given; NULL for none.
    pending_identity      jsonb,
    -- When the first proof was given, if not when the challenge was made: at another
    -- provider, or in answer to the challenge. NULL for create_time.
    first_proof_time      timestamptz,
    create_time           timestamptz NOT NULL DEFAULT now(),
    expire_time           timestamptz NOT NULL,
    -- When the challenge stopped working before expire_time, and why.
    end_time              timestamptz,
    end_reason            text,
    CONSTRAINT challenges_pkey PRIMARY KEY (token_hash),
    CONSTRAINT challenges_account_id_fkey FOREIGN KEY (account_id) REFERENCES auth.accounts (id) ON DELETE CASCADE,
    CONSTRAINT challenges_token_hash_length CHECK (octet_length(token_hash) = 32),
    CONSTRAINT challenges_tries_positive CHECK (tries >= 0),
    CONSTRAINT challenges_end_reason_known CHECK ((end_time IS NULL) = (end_reason IS NULL))
);
CREATE INDEX challenges_account_id_idx ON auth.challenges (account_id);
CREATE INDEX challenges_expire_time_idx ON auth.challenges (expire_time);

-- Authenticator apps (RFC 6238), at most one for each account.
CREATE TABLE auth.totp_factors (
    account_id      uuid        NOT NULL,
    sealed_secret   bytea       NOT NULL,
    -- The id of the secret key that seals it.
    key_id          text        NOT NULL,
    -- The step of the last accepted code: a code works once.
    last_step       bigint      NOT NULL DEFAULT 0,
    create_time     timestamptz NOT NULL DEFAULT now(),
    last_used_time  timestamptz,
    CONSTRAINT totp_factors_pkey PRIMARY KEY (account_id),
    CONSTRAINT totp_factors_account_id_fkey FOREIGN KEY (account_id) REFERENCES auth.accounts (id) ON DELETE CASCADE
);

-- Recovery codes, as SHA-256 hashes: a code has 80 random bits.
CREATE TABLE auth.recovery_codes (
    code_hash   bytea  NOT NULL,
    account_id  uuid   NOT NULL,
    use_time    timestamptz,
    CONSTRAINT recovery_codes_pkey PRIMARY KEY (code_hash),
    CONSTRAINT recovery_codes_account_id_fkey FOREIGN KEY (account_id) REFERENCES auth.accounts (id) ON DELETE CASCADE,
    CONSTRAINT recovery_codes_code_hash_length CHECK (octet_length(code_hash) = 32)
);
CREATE INDEX recovery_codes_account_id_idx ON auth.recovery_codes (account_id);

-- Devices that need no second proof. Each sign-in moves a row to another id, which
-- the device's new token names.
CREATE TABLE auth.remembered_devices (
    device_id            uuid        NOT NULL,
    account_id           uuid        NOT NULL,
    -- Whether the account's email was unverified then: once it is verified, the row
    -- counts for nothing, even if a binary older than number 8 verified it.
    attached_unverified  boolean     NOT NULL DEFAULT false,
    create_time          timestamptz NOT NULL DEFAULT now(),
    last_used_time       timestamptz NOT NULL DEFAULT now(),
    expire_time          timestamptz NOT NULL,
    user_agent           text        NOT NULL DEFAULT '',
    ip_address           text        NOT NULL DEFAULT '',
    CONSTRAINT remembered_devices_pkey PRIMARY KEY (device_id),
    CONSTRAINT remembered_devices_account_id_fkey FOREIGN KEY (account_id) REFERENCES auth.accounts (id) ON DELETE CASCADE
);
CREATE INDEX remembered_devices_account_id_idx ON auth.remembered_devices (account_id);
CREATE INDEX remembered_devices_expire_time_idx ON auth.remembered_devices (expire_time);

-- Passkeys (WebAuthn credentials).
CREATE TABLE auth.passkeys (
    id               uuid        NOT NULL,
    account_id       uuid        NOT NULL,
    credential_id    bytea       NOT NULL,
    -- The credential as the WebAuthn library stores it.
    record           jsonb       NOT NULL,
    sign_count       bigint      NOT NULL DEFAULT 0,
    rp_id            text        NOT NULL,
    aaguid           uuid        NOT NULL,
    name             text        NOT NULL,
    backup_eligible  boolean     NOT NULL DEFAULT false,
    backed_up        boolean     NOT NULL DEFAULT false,
    create_time      timestamptz NOT NULL DEFAULT now(),
    last_used_time   timestamptz,
    -- When the passkey was found to be a clone; it no longer signs in.
    block_time       timestamptz,
    CONSTRAINT passkeys_pkey PRIMARY KEY (id),
    CONSTRAINT passkeys_account_id_fkey FOREIGN KEY (account_id) REFERENCES auth.accounts (id) ON DELETE CASCADE,
    CONSTRAINT passkeys_sign_count_positive CHECK (sign_count >= 0)
);
CREATE UNIQUE INDEX passkeys_credential_id_key ON auth.passkeys (credential_id);
CREATE INDEX passkeys_account_id_idx ON auth.passkeys (account_id);

-- Who a person is at other providers. Only an account whose email is its owner's has
-- identities.
CREATE TABLE auth.identities (
    id                   uuid        NOT NULL,
    issuer               text        NOT NULL,
    subject              text        NOT NULL,
    account_id           uuid        NOT NULL,
    -- The id of the provider in GATEHOUSE_PROVIDERS by which it was last used.
    provider             text        NOT NULL,
    -- What the provider last said, to show; it links nothing.
    email                text        NOT NULL DEFAULT '',
    email_authoritative  boolean     NOT NULL DEFAULT false,
    create_time          timestamptz NOT NULL DEFAULT now(),
    last_used_time       timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT identities_pkey PRIMARY KEY (issuer, subject),
    CONSTRAINT identities_account_id_fkey FOREIGN KEY (account_id) REFERENCES auth.accounts (id) ON DELETE CASCADE,
    CONSTRAINT identities_subject_length CHECK (octet_length(subject) BETWEEN 1 AND 255)
);
CREATE UNIQUE INDEX identities_id_key ON auth.identities (id);
CREATE INDEX identities_account_id_idx ON auth.identities (account_id);

-- API keys. The table stores the hash of a key's text.
CREATE TABLE auth.api_keys (
    id                    uuid        NOT NULL,
    secret_hash           bytea       NOT NULL,
    account_id            uuid        NOT NULL,
    name                  text        NOT NULL,
    scopes                text[]      NOT NULL,
    -- Networks in CIDR notation; none for all.
    networks              text[]      NOT NULL DEFAULT '{}',
    -- The assurance level of the session that created it.
    level                 smallint    NOT NULL DEFAULT 1,
    -- As for remembered devices.
    attached_unverified   boolean     NOT NULL DEFAULT false,
    -- A hash of the Idempotency-Key and the request that created it.
    idempotency_key_hash  bytea,
    create_time           timestamptz NOT NULL DEFAULT now(),
    expire_time           timestamptz NOT NULL,
    last_used_time        timestamptz,
    last_used_address     text        NOT NULL DEFAULT '',
    -- When the mail about the coming expiry was written.
    remind_time           timestamptz,
    revoke_time           timestamptz,
    revoke_reason         text,
    CONSTRAINT api_keys_pkey PRIMARY KEY (id),
    CONSTRAINT api_keys_account_id_fkey FOREIGN KEY (account_id) REFERENCES auth.accounts (id) ON DELETE CASCADE,
    CONSTRAINT api_keys_secret_hash_length CHECK (octet_length(secret_hash) = 32),
    CONSTRAINT api_keys_level_known CHECK (level IN (1, 2)),
    CONSTRAINT api_keys_revoke_reason_known CHECK ((revoke_time IS NULL) = (revoke_reason IS NULL))
);
CREATE INDEX api_keys_account_id_idx ON auth.api_keys (account_id);
CREATE INDEX api_keys_expire_time_idx ON auth.api_keys (expire_time);
CREATE INDEX api_keys_attached_unverified_idx ON auth.api_keys (account_id) WHERE attached_unverified;
CREATE INDEX api_keys_revoke_time_idx ON auth.api_keys (revoke_time) WHERE revoke_time IS NOT NULL;

-- The mail outbox. A mail is written in the transaction that causes it. A row is
-- pending, sent, or failed (a dead letter).
CREATE TABLE auth.mails (
    id                 uuid        NOT NULL,
    kind               text        NOT NULL,
    recipient          text        NOT NULL,
    account_id         uuid,
    -- A BCP 47 tag; empty for the default.
    locale             text        NOT NULL DEFAULT '',
    -- The values for the template, sealed, including the link; NULL once sent.
    sealed_values      bytea,
    attempts           integer     NOT NULL DEFAULT 0,
    next_attempt_time  timestamptz NOT NULL DEFAULT now(),
    -- The mail server's last refusal.
    last_error         text        NOT NULL DEFAULT '',
    create_time        timestamptz NOT NULL DEFAULT now(),
    sent_time          timestamptz,
    fail_time          timestamptz,
    -- When an administrator requeued the mail, which allows another day of attempts.
    retry_time         timestamptz,
    CONSTRAINT mails_pkey PRIMARY KEY (id),
    CONSTRAINT mails_account_id_fkey FOREIGN KEY (account_id) REFERENCES auth.accounts (id) ON DELETE CASCADE,
    CONSTRAINT mails_one_end CHECK (sent_time IS NULL OR fail_time IS NULL),
    CONSTRAINT mails_erased_once_sent CHECK (sent_time IS NULL OR sealed_values IS NULL)
);
CREATE INDEX mails_pending_idx ON auth.mails (next_attempt_time) WHERE sent_time IS NULL AND fail_time IS NULL;
-- For listing the mails of one status, and for the janitor.
CREATE INDEX mails_pending_id_idx ON auth.mails (id) WHERE sent_time IS NULL AND fail_time IS NULL;
CREATE INDEX mails_sent_id_idx ON auth.mails (id) WHERE sent_time IS NOT NULL;
CREATE INDEX mails_failed_id_idx ON auth.mails (id) WHERE fail_time IS NOT NULL;
CREATE INDEX mails_sent_time_idx ON auth.mails (sent_time) WHERE sent_time IS NOT NULL;
CREATE INDEX mails_fail_time_idx ON auth.mails (fail_time) WHERE fail_time IS NOT NULL;
CREATE INDEX mails_account_id_idx ON auth.mails (account_id);
CREATE INDEX mails_recipient_fold_idx ON auth.mails (lower(recipient COLLATE "C"));
-- For binaries older than number 6; remove it with number 8.
CREATE INDEX mails_recipient_idx ON auth.mails (lower(recipient));

-- Webhooks: endpoints that get events about accounts by HTTP.
CREATE TABLE auth.webhooks (
    id                  uuid        NOT NULL,
    -- Empty for a listener, which gets its events by a stream.
    url                 text        NOT NULL DEFAULT '',
    description         text        NOT NULL DEFAULT '',
    -- The types of the events that it gets.
    types               text[]      NOT NULL,
    signature_versions  text[]      NOT NULL DEFAULT '{v1}',
    enabled             boolean     NOT NULL DEFAULT true,
    -- Why it was disabled.
    disable_reason      text        NOT NULL DEFAULT '',
    -- Attempts that failed since the last success, and since when.
    failures            integer     NOT NULL DEFAULT 0,
    fail_since_time     timestamptz,
    -- The circuit breaker: until then, no attempt is made.
    resume_time         timestamptz,
    -- When administrators last got a mail about it.
    alert_time          timestamptz,
    -- A hash of the caller, the Idempotency-Key and the request that created it.
    idempotency_key_hash  bytea,
    -- When a listener whose stream has ended is deleted; NULL for an endpoint.
    expire_time         timestamptz,
    create_time         timestamptz NOT NULL DEFAULT now(),
    update_time         timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT webhooks_pkey PRIMARY KEY (id),
    CONSTRAINT webhooks_one_kind CHECK ((url = '') = (expire_time IS NOT NULL)),
    CONSTRAINT webhooks_disable_reason_known CHECK (enabled = (disable_reason = '')),
    CONSTRAINT webhooks_failures_positive CHECK (failures >= 0)
);
CREATE INDEX webhooks_expire_time_idx ON auth.webhooks (expire_time) WHERE expire_time IS NOT NULL;

-- The secrets of webhooks. The newest signs, and older ones until they expire.
CREATE TABLE auth.webhook_secrets (
    id             uuid        NOT NULL,
    webhook_id     uuid        NOT NULL,
    -- 32 bytes of the HMAC key and 32 bytes of the Ed25519 seed, sealed.
    sealed_secret  bytea       NOT NULL,
    -- The id of the secret key that seals it.
    key_id         text        NOT NULL,
    -- The public key of the seed.
    public_key     bytea       NOT NULL,
    create_time    timestamptz NOT NULL DEFAULT now(),
    -- NULL for the newest.
    expire_time    timestamptz,
    CONSTRAINT webhook_secrets_pkey PRIMARY KEY (id),
    CONSTRAINT webhook_secrets_webhook_id_fkey FOREIGN KEY (webhook_id) REFERENCES auth.webhooks (id) ON DELETE CASCADE,
    CONSTRAINT webhook_secrets_public_key_length CHECK (octet_length(public_key) = 32)
);
CREATE INDEX webhook_secrets_webhook_id_idx ON auth.webhook_secrets (webhook_id);
CREATE INDEX webhook_secrets_expire_time_idx ON auth.webhook_secrets (expire_time) WHERE expire_time IS NOT NULL;

-- Events about accounts, for webhooks. A trigger writes an event in the transaction of
-- its fact, if an enabled webhook wants its type. It holds ids alone.
CREATE TABLE auth.events (
    id           uuid        NOT NULL DEFAULT gen_random_uuid(),
    xid          xid8        NOT NULL DEFAULT pg_current_xact_id(),
    type         text        NOT NULL,
    -- NULL for an event that is about no account.
    account_id   uuid,
    version      bigint      NOT NULL DEFAULT 0,
    data         jsonb       NOT NULL,
    create_time  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT events_pkey PRIMARY KEY (id)
);
CREATE INDEX events_create_time_idx ON auth.events (create_time, id);

-- One event for one webhook, or a logout for one OAuth client. A row is pending, sent, or
-- failed (a dead letter). Pending rows of one account and webhook are sent in their order.
CREATE TABLE auth.deliveries (
    id                 uuid        NOT NULL DEFAULT gen_random_uuid(),
    event_id           uuid        NOT NULL,
    webhook_id         uuid,
    client_id          text,
    -- Copies of the event's columns, by which deliveries are ordered.
    account_id         uuid,
    event_time         timestamptz NOT NULL,
    attempts           integer     NOT NULL DEFAULT 0,
    next_attempt_time  timestamptz NOT NULL DEFAULT now(),
    -- Until then, a copy of auth makes an attempt; NULL while none does.
    lease_time         timestamptz,
    -- The result of the last attempt: the HTTP status, or 0 without an answer.
    last_status        integer     NOT NULL DEFAULT 0,
    last_error         text        NOT NULL DEFAULT '',
    last_milliseconds  integer     NOT NULL DEFAULT 0,
    create_time        timestamptz NOT NULL DEFAULT clock_timestamp(),
    sent_time          timestamptz,
    fail_time          timestamptz,
    CONSTRAINT deliveries_pkey PRIMARY KEY (id),
    CONSTRAINT deliveries_event_id_fkey FOREIGN KEY (event_id) REFERENCES auth.events (id) ON DELETE CASCADE,
    CONSTRAINT deliveries_webhook_id_fkey FOREIGN KEY (webhook_id) REFERENCES auth.webhooks (id) ON DELETE CASCADE,
    CONSTRAINT deliveries_one_receiver CHECK ((webhook_id IS NULL) = (client_id IS NOT NULL)),
    CONSTRAINT deliveries_one_end CHECK (sent_time IS NULL OR fail_time IS NULL)
);
CREATE INDEX deliveries_event_id_idx ON auth.deliveries (event_id, webhook_id);
CREATE INDEX deliveries_due_idx ON auth.deliveries (webhook_id, next_attempt_time) WHERE sent_time IS NULL AND fail_time IS NULL;
CREATE INDEX deliveries_order_idx ON auth.deliveries (webhook_id, account_id, event_time, id) WHERE sent_time IS NULL AND fail_time IS NULL;
CREATE INDEX deliveries_leased_idx ON auth.deliveries (webhook_id, lease_time) WHERE lease_time IS NOT NULL;
-- For listing the deliveries of an endpoint, all or of one status.
CREATE INDEX deliveries_list_idx ON auth.deliveries (webhook_id, create_time, id);
CREATE INDEX deliveries_pending_idx ON auth.deliveries (webhook_id, create_time, id) WHERE sent_time IS NULL AND fail_time IS NULL;
CREATE INDEX deliveries_sent_idx ON auth.deliveries (webhook_id, create_time, id) WHERE sent_time IS NOT NULL;
CREATE INDEX deliveries_failed_idx ON auth.deliveries (webhook_id, create_time, id) WHERE fail_time IS NOT NULL;

-- Recent failed attempts per account, address or device. The key is a MAC of the
-- counted subject, so that the table contains no email and no address.
CREATE TABLE auth.throttles (
    key          bytea       NOT NULL,
    failures     integer     NOT NULL,
    -- How many of the failures are attempts that are still being checked.
    pending      integer     NOT NULL DEFAULT 0,
    -- Until then, further attempts are refused unchecked.
    wait_until   timestamptz NOT NULL,
    update_time  timestamptz NOT NULL,
    CONSTRAINT throttles_pkey PRIMARY KEY (key),
    CONSTRAINT throttles_key_length CHECK (octet_length(key) = 32)
);
CREATE INDEX throttles_update_time_idx ON auth.throttles (update_time);

-- The account that a call with an Idempotency-Key created, so that a retry creates
-- no second one. Rows are valid for a day. There is no foreign key: if the account
-- was deleted, a retry gets an error that says so.
CREATE TABLE auth.idempotency_keys (
    -- A MAC of the caller, the method and the key.
    name         bytea       NOT NULL,
    -- A MAC of the request without its secrets.
    payload      bytea       NOT NULL,
    -- NULL if the call sent a link instead.
    account_id   uuid,
    create_time  timestamptz NOT NULL,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (name),
    CONSTRAINT idempotency_keys_name_length CHECK (octet_length(name) = 32),
    CONSTRAINT idempotency_keys_payload_length CHECK (octet_length(payload) = 32)
);
CREATE INDEX idempotency_keys_create_time_idx ON auth.idempotency_keys (create_time);

-- The audit log: every change of an identity, and every refused attempt. It stores
-- ids and names of attributes, never an email or a secret. auth's role may insert and
-- read. Functions of the tables' owner do more: one prunes old events, one removes the
-- address and user agent of an erased person, one raises the count of an existing
-- refusal, and one closes the table each month: it renames it and creates the next
-- one, from which the closed tables inherit (internal/schema/auditlog).
CREATE TABLE auth.audit_events (
    id           uuid        NOT NULL,
    create_time  timestamptz NOT NULL DEFAULT now(),
    event        text        NOT NULL,
    outcome      text        NOT NULL,
    -- The error reason of a refusal.
    reason       text        NOT NULL DEFAULT '',
    -- The account that the event is about, if any, and the account that acted.
    account_id   uuid,
    actor_id     uuid,
    session_id   uuid,
    ip_address   text        NOT NULL DEFAULT '',
    user_agent   text        NOT NULL DEFAULT '',
    request_id   text        NOT NULL DEFAULT '',
    -- Refusals of one kind are one row per account or network and minute: their
    -- count, and a MAC of their common facts.
    count           integer     NOT NULL DEFAULT 1,
    refusal_key     bytea,
    refusal_minute  timestamptz,
    -- The names of the changed attributes; never values.
    changed         text[]      NOT NULL DEFAULT '{}',
    -- What the event is about that is neither an account nor a session: a webhook or an API key.
    target_id       uuid,
    CONSTRAINT audit_events_pkey PRIMARY KEY (id)
);
CREATE UNIQUE INDEX audit_events_refusal_key ON auth.audit_events (refusal_key, refusal_minute) WHERE refusal_key IS NOT NULL;
-- A listing reads each kind of event within one of these, ordered by id, which
-- begins with the time.
CREATE INDEX audit_events_event_idx ON auth.audit_events (event, outcome, id);
CREATE INDEX audit_events_account_id_idx ON auth.audit_events (account_id, event, outcome, id);
CREATE INDEX audit_events_actor_id_idx ON auth.audit_events (actor_id, event, outcome, id);

-- One row about the applied schema: internal/schema writes it, the service reads it.
CREATE TABLE auth.applied_schema (
    number        integer     NOT NULL,
    -- Hashes of the applied schema.sql and of the resulting tables. While both are
    -- unchanged, there is nothing to apply.
    source_hash   bytea       NOT NULL,
    catalog_hash  bytea       NOT NULL,
    apply_time    timestamptz NOT NULL DEFAULT now(),
    -- The settings of the newest binary. An older one, to which an operator rolls back,
    -- ignores those that it does not know.
    setting_names text[]      NOT NULL DEFAULT '{}',
    CONSTRAINT applied_schema_number_positive CHECK (number > 0)
);
CREATE UNIQUE INDEX applied_schema_one_row ON auth.applied_schema ((true));

-- users ---------------------------------------------------------------------

CREATE TABLE users.profiles (
    id               uuid        NOT NULL,
    first_name       text        NOT NULL DEFAULT '',
    last_name        text        NOT NULL DEFAULT '',
    locale           text        NOT NULL DEFAULT '',
    -- The version of the fields above; answers show it as the etag.
    version          bigint      NOT NULL DEFAULT 1,
    create_time      timestamptz NOT NULL,
    update_time      timestamptz NOT NULL DEFAULT now(),
    -- Copies of auth's facts, for searching only; account events update them. The
    -- email is not unique: while two accounts swap emails, both may have one here.
    email            text        NOT NULL,
    status           text        NOT NULL,
    account_version  bigint      NOT NULL,
    -- The application's JSON objects: the first is the person's, the second its
    -- administrators'. json, not jsonb, keeps the text as it was checked: jsonb would
    -- write a number such as 1e300 with all of its digits.
    attributes       json        NOT NULL DEFAULT '{}',
    app_attributes   json        NOT NULL DEFAULT '{}',
    CONSTRAINT profiles_pkey PRIMARY KEY (id),
    CONSTRAINT profiles_status_known CHECK (status IN ('active', 'disabled'))
);
-- One index per order of a listing, with and without a status. The collation is
-- part of lower's argument, because Atlas does not read the collation of a key.
CREATE INDEX profiles_create_time_idx ON users.profiles (create_time, id);
CREATE INDEX profiles_status_create_time_idx ON users.profiles (status, create_time, id);
CREATE INDEX profiles_email_order_idx ON users.profiles (lower(email COLLATE "C"), id);
CREATE INDEX profiles_status_email_order_idx ON users.profiles (status, lower(email COLLATE "C"), id);
-- One index per prefix search; the email's is the one of its order. Names are
-- folded by Unicode's rules even if the database's locale is C. The index of the
-- whole name also serves the first name.
CREATE INDEX profiles_name_prefix_idx ON users.profiles (lower((first_name || ' ' || last_name) COLLATE "und-x-icu") text_pattern_ops);
CREATE INDEX profiles_last_name_prefix_idx ON users.profiles (lower(last_name COLLATE "und-x-icu") text_pattern_ops);
-- One index per searched field, order and bucket: the profiles whose field begins with
-- the same characters, in order; users/search.go says which. Searching by email in its
-- own order needs none. They are in the order of bytes by their collation, because row
-- comparisons use an index's default operators only. They include what their expressions
-- read, without which Postgres does not answer from the index alone.
CREATE INDEX profiles_name_2_create_time_idx ON users.profiles (left(lower((first_name || ' ' || last_name) COLLATE "und-x-icu") COLLATE "C", 2), status, create_time, id) INCLUDE (first_name, last_name);
CREATE INDEX profiles_name_4_create_time_idx ON users.profiles (left(lower((first_name || ' ' || last_name) COLLATE "und-x-icu") COLLATE "C", 4), status, create_time, id) INCLUDE (first_name, last_name);
CREATE INDEX profiles_name_2_email_idx ON users.profiles (left(lower((first_name || ' ' || last_name) COLLATE "und-x-icu") COLLATE "C", 2), status, lower(email COLLATE "C"), id) INCLUDE (first_name, last_name, email);
CREATE INDEX profiles_name_4_email_idx ON users.profiles (left(lower((first_name || ' ' || last_name) COLLATE "und-x-icu") COLLATE "C", 4), status, lower(email COLLATE "C"), id) INCLUDE (first_name, last_name, email);
CREATE INDEX profiles_last_name_2_create_time_idx ON users.profiles (left(lower(last_name COLLATE "und-x-icu") COLLATE "C", 2), status, create_time, id) INCLUDE (last_name);
CREATE INDEX profiles_last_name_4_create_time_idx ON users.profiles (left(lower(last_name COLLATE "und-x-icu") COLLATE "C", 4), status, create_time, id) INCLUDE (last_name);
CREATE INDEX profiles_last_name_2_email_idx ON users.profiles (left(lower(last_name COLLATE "und-x-icu") COLLATE "C", 2), status, lower(email COLLATE "C"), id) INCLUDE (last_name, email);
CREATE INDEX profiles_last_name_4_email_idx ON users.profiles (left(lower(last_name COLLATE "und-x-icu") COLLATE "C", 4), status, lower(email COLLATE "C"), id) INCLUDE (last_name, email);
CREATE INDEX profiles_email_2_create_time_idx ON users.profiles (left(lower(email COLLATE "C") COLLATE "C", 2), status, create_time, id) INCLUDE (email);
CREATE INDEX profiles_email_4_create_time_idx ON users.profiles (left(lower(email COLLATE "C") COLLATE "C", 4), status, create_time, id) INCLUDE (email);
CREATE INDEX profiles_email_6_create_time_idx ON users.profiles (left(lower(email COLLATE "C") COLLATE "C", 6), status, create_time, id) INCLUDE (email);
CREATE INDEX profiles_email_8_create_time_idx ON users.profiles (left(lower(email COLLATE "C") COLLATE "C", 8), status, create_time, id) INCLUDE (email);

-- Deleted accounts, so that a late account event does not bring one back. The
-- janitor deletes a tombstone after a year, when no event can be on its way.
CREATE TABLE users.tombstones (
    id               uuid        NOT NULL,
    account_version  bigint      NOT NULL,
    delete_time      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT tombstones_pkey PRIMARY KEY (id)
);
CREATE INDEX tombstones_delete_time_idx ON users.tombstones (delete_time);

-- Audit events that auth has not confirmed yet. auth keeps the audit log.
CREATE TABLE users.audit_outbox (
    id           uuid        NOT NULL,
    create_time  timestamptz NOT NULL DEFAULT clock_timestamp(),
    profile_id   uuid        NOT NULL,
    -- The names of the changed attributes; never values.
    changed      text[]      NOT NULL,
    actor_id     uuid,
    session_id   uuid,
    ip_address   text        NOT NULL DEFAULT '',
    user_agent   text        NOT NULL DEFAULT '',
    request_id   text        NOT NULL DEFAULT '',
    CONSTRAINT audit_outbox_pkey PRIMARY KEY (id)
);
CREATE INDEX audit_outbox_profile_id_idx ON users.audit_outbox (profile_id);

-- Like auth.changes.
CREATE TABLE users.changes (
    id           uuid        NOT NULL DEFAULT gen_random_uuid(),
    xid          xid8        NOT NULL DEFAULT pg_current_xact_id(),
    tag          text        NOT NULL,
    create_time  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT changes_pkey PRIMARY KEY (id)
);
CREATE INDEX changes_xid_idx ON users.changes (xid);
CREATE INDEX changes_create_time_idx ON users.changes (create_time);

-- The position of users in auth's account log; see internal/lifecycle.
CREATE TABLE users.account_cursor (
    cursor  text    NOT NULL DEFAULT '',
    -- Whether profiles of accounts that auth does not have must be looked for.
    sweep   boolean NOT NULL DEFAULT false
);
CREATE UNIQUE INDEX account_cursor_one_row ON users.account_cursor ((true));

-- Like auth.applied_schema: each service reads the number in its own schema.
CREATE TABLE users.applied_schema (
    number        integer     NOT NULL,
    source_hash   bytea       NOT NULL,
    catalog_hash  bytea       NOT NULL,
    apply_time    timestamptz NOT NULL DEFAULT now(),
    setting_names text[]      NOT NULL DEFAULT '{}',
    CONSTRAINT applied_schema_number_positive CHECK (number > 0)
);
CREATE UNIQUE INDEX applied_schema_one_row ON users.applied_schema ((true));
