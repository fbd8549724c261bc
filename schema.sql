-- schema number: 6
--
-- The whole schema, declaratively: `gatehouse schema apply` (or the Atlas CLI
-- with atlas.hcl) makes a database be so. Keys are UUIDv7 made in Go; times
-- are timestamptz; every constraint has a name, for code reads it. No foreign
-- key crosses the two schemas: each belongs to one service.
--
-- Raise the number above with every change: it is stored when this is applied,
-- and a binary that carries a smaller one then leaves the database alone.
-- Atlas neither sees nor makes partitions, functions, triggers, views, domains,
-- sequences or row security; internal/schema makes the roles, the grants and the
-- functions.

CREATE SCHEMA auth;
CREATE SCHEMA users;

-- auth ----------------------------------------------------------------------

CREATE TABLE auth.accounts (
    id                    uuid        NOT NULL,
    email                 text        NOT NULL,
    email_verified        boolean     NOT NULL DEFAULT false,
    -- Empty while nobody has chosen a password: invited, or made to choose anew.
    password_hash         text        NOT NULL,
    password_change_time  timestamptz NOT NULL DEFAULT now(),
    status                text        NOT NULL DEFAULT 'active',
    roles                 text[]      NOT NULL DEFAULT '{}',
    -- Raised with every change of roles or status; tokens carry it as "ver".
    authz_version         bigint      NOT NULL DEFAULT 1,
    -- Raised with every change that users must come to know.
    version               bigint      NOT NULL DEFAULT 1,
    last_sign_in_time     timestamptz,
    create_time           timestamptz NOT NULL DEFAULT now(),
    update_time           timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT accounts_pkey PRIMARY KEY (id),
    CONSTRAINT accounts_email_length CHECK (char_length(email) BETWEEN 3 AND 254),
    CONSTRAINT accounts_status_known CHECK (status IN ('active', 'disabled'))
);
-- Two spellings of one email in ASCII are one account, whatever the database's
-- locale makes of an I; foldEmail does the same in Go.
CREATE UNIQUE INDEX accounts_email_fold_key ON auth.accounts (lower(email COLLATE "C"));
-- For binaries of before number 6; goes with number 7.
CREATE UNIQUE INDEX accounts_email_key ON auth.accounts (lower(email));
-- Administrators are few, and the last one is looked for before each removal.
CREATE INDEX accounts_admins_idx ON auth.accounts (id)
    WHERE status = 'active' AND 'admin' = ANY (roles) AND password_hash <> '';

CREATE TABLE auth.sessions (
    id                    uuid        NOT NULL,
    account_id            uuid        NOT NULL,
    -- The refresh token that is current: its number, hash, maker key and time.
    generation            integer     NOT NULL DEFAULT 1,
    token_hash            bytea       NOT NULL,
    token_key             text        NOT NULL,
    rotate_time           timestamptz NOT NULL DEFAULT now(),
    -- The hash of the key that the client sent with the latest rotation.
    idempotency_key_hash  bytea,
    -- When the password was given last.
    authenticate_time     timestamptz NOT NULL DEFAULT now(),
    user_agent            text        NOT NULL DEFAULT '',
    ip_address            text        NOT NULL DEFAULT '',
    create_time           timestamptz NOT NULL DEFAULT now(),
    last_used_time        timestamptz NOT NULL DEFAULT now(),
    expire_time           timestamptz NOT NULL,
    max_expire_time       timestamptz NOT NULL,
    revoke_time           timestamptz,
    revoke_reason         text,
    -- The device that signed in, as its device token names it.
    device_id             uuid,
    -- The deployment's session_epoch when it began.
    epoch                 bigint      NOT NULL DEFAULT 0,
    CONSTRAINT sessions_pkey PRIMARY KEY (id),
    CONSTRAINT sessions_account_id_fkey FOREIGN KEY (account_id) REFERENCES auth.accounts (id) ON DELETE CASCADE,
    CONSTRAINT sessions_generation_positive CHECK (generation > 0),
    CONSTRAINT sessions_token_hash_length CHECK (octet_length(token_hash) = 32),
    CONSTRAINT sessions_revoke_reason_known CHECK ((revoke_time IS NULL) = (revoke_reason IS NULL))
);
CREATE INDEX sessions_live_idx ON auth.sessions (account_id, last_used_time DESC) WHERE revoke_time IS NULL;
-- For the foreign key's cascade, which also takes the ended ones.
CREATE INDEX sessions_account_id_idx ON auth.sessions (account_id);
CREATE INDEX sessions_expire_time_idx ON auth.sessions (expire_time);
CREATE INDEX sessions_revoke_time_idx ON auth.sessions (revoke_time) WHERE revoke_time IS NOT NULL;

-- What concerns all of auth's copies together, in one row.
CREATE TABLE auth.deployment (
    -- Sessions of an earlier epoch have ended, all at once.
    session_epoch    bigint      NOT NULL DEFAULT 0,
    -- The issuer of the copy that started last, as tokens carry it; empty before
    -- the first.
    issuer           text        NOT NULL DEFAULT '',
    issuer_set_time  timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX deployment_one_row ON auth.deployment ((true));

-- A key verifies from when it is written. The one whose sign_time came last
-- signs; an older one goes once the last token that it signed has expired.
CREATE TABLE auth.signing_keys (
    kid                 text        NOT NULL,
    public_key          bytea       NOT NULL,
    sealed_private_key  bytea       NOT NULL,
    create_time         timestamptz NOT NULL DEFAULT now(),
    sign_time           timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT signing_keys_pkey PRIMARY KEY (kid),
    CONSTRAINT signing_keys_public_key_length CHECK (octet_length(public_key) = 32)
);

-- One row for each account that users has yet to hear about. It says only that
-- there is news: the relay reads the account as it is when it is told.
CREATE TABLE auth.account_outbox (
    account_id         uuid        NOT NULL,
    version            bigint      NOT NULL,
    deleted            boolean     NOT NULL DEFAULT false,
    -- What the profile starts with, kept only until users has it.
    profile            jsonb,
    attempts           integer     NOT NULL DEFAULT 0,
    next_attempt_time  timestamptz NOT NULL,
    create_time        timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT account_outbox_pkey PRIMARY KEY (account_id)
);
CREATE INDEX account_outbox_next_attempt_time_idx ON auth.account_outbox (next_attempt_time);

-- What access tokens that are still alive must not be accepted any more: those
-- of a session, or those of an account below a version. Every copy of auth reads
-- on from its last poll by xid, which, unlike a sequence, no late commit passes.
CREATE TABLE auth.revocations (
    id             uuid        NOT NULL DEFAULT gen_random_uuid(),
    xid            xid8        NOT NULL DEFAULT pg_current_xact_id(),
    session_id     uuid,
    account_id     uuid,
    least_version  bigint,
    -- When the last token that it could concern has expired.
    expire_time    timestamptz NOT NULL,
    CONSTRAINT revocations_pkey PRIMARY KEY (id),
    CONSTRAINT revocations_one_kind CHECK ((session_id IS NULL) = (account_id IS NOT NULL AND least_version IS NOT NULL))
);
CREATE INDEX revocations_xid_idx ON auth.revocations (xid);
CREATE INDEX revocations_expire_time_idx ON auth.revocations (expire_time);

-- What has changed lately, as gateways tag the answers that they keep: written
-- with the change, and read on from poll to poll like the revocations.
CREATE TABLE auth.changes (
    id           uuid        NOT NULL DEFAULT gen_random_uuid(),
    xid          xid8        NOT NULL DEFAULT pg_current_xact_id(),
    tag          text        NOT NULL,
    create_time  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT changes_pkey PRIMARY KEY (id)
);
CREATE INDEX changes_xid_idx ON auth.changes (xid);
CREATE INDEX changes_create_time_idx ON auth.changes (create_time);

-- Links that were sent by mail: each works once. A token is kept as its hash.
CREATE TABLE auth.links (
    token_hash   bytea       NOT NULL,
    kind         text        NOT NULL,
    -- The address that it was sent to, or that it confirms.
    email        text        NOT NULL,
    -- Set once it is known whose account it is about.
    account_id   uuid,
    -- What a new account's profile starts with.
    profile      jsonb,
    create_time  timestamptz NOT NULL DEFAULT now(),
    expire_time  timestamptz NOT NULL,
    -- When it stopped working before that, and why.
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
-- For binaries of before number 6; goes with number 7.
CREATE INDEX links_email_idx ON auth.links (lower(email));
CREATE INDEX links_expire_time_idx ON auth.links (expire_time);

-- Mail to be sent, in the transaction that it is about, and what became of it.
CREATE TABLE auth.mails (
    id                 uuid        NOT NULL,
    kind               text        NOT NULL,
    recipient          text        NOT NULL,
    account_id         uuid,
    -- A BCP 47 tag; empty for the default.
    locale             text        NOT NULL DEFAULT '',
    -- What the mail says beside its template, a link among it; gone once it is sent.
    sealed_values      bytea,
    attempts           integer     NOT NULL DEFAULT 0,
    next_attempt_time  timestamptz NOT NULL DEFAULT now(),
    -- What the mail server said last, when it refused.
    last_error         text        NOT NULL DEFAULT '',
    create_time        timestamptz NOT NULL DEFAULT now(),
    sent_time          timestamptz,
    fail_time          timestamptz,
    -- When an administrator had it tried again, which gives it another day.
    retry_time         timestamptz,
    CONSTRAINT mails_pkey PRIMARY KEY (id),
    CONSTRAINT mails_account_id_fkey FOREIGN KEY (account_id) REFERENCES auth.accounts (id) ON DELETE CASCADE,
    CONSTRAINT mails_one_end CHECK (sent_time IS NULL OR fail_time IS NULL),
    CONSTRAINT mails_erased_once_sent CHECK (sent_time IS NULL OR sealed_values IS NULL)
);
CREATE INDEX mails_pending_idx ON auth.mails (next_attempt_time) WHERE sent_time IS NULL AND fail_time IS NULL;
-- For listing those of one status, and for letting go of the old.
CREATE INDEX mails_pending_id_idx ON auth.mails (id) WHERE sent_time IS NULL AND fail_time IS NULL;
CREATE INDEX mails_sent_id_idx ON auth.mails (id) WHERE sent_time IS NOT NULL;
CREATE INDEX mails_failed_id_idx ON auth.mails (id) WHERE fail_time IS NOT NULL;
CREATE INDEX mails_sent_time_idx ON auth.mails (sent_time) WHERE sent_time IS NOT NULL;
CREATE INDEX mails_fail_time_idx ON auth.mails (fail_time) WHERE fail_time IS NOT NULL;
CREATE INDEX mails_account_id_idx ON auth.mails (account_id);
CREATE INDEX mails_recipient_fold_idx ON auth.mails (lower(recipient COLLATE "C"));
-- For binaries of before number 6; goes with number 7.
CREATE INDEX mails_recipient_idx ON auth.mails (lower(recipient));

-- Failures lately, by what they are counted for: an account, an address, a
-- device. The key is a MAC of that, so that no email or address stands here.
CREATE TABLE auth.throttles (
    key          bytea       NOT NULL,
    failures     integer     NOT NULL,
    -- How many of these are attempts that are still being looked at.
    pending      integer     NOT NULL DEFAULT 0,
    -- Until then, further tries are refused without being looked at.
    wait_until   timestamptz NOT NULL,
    update_time  timestamptz NOT NULL,
    CONSTRAINT throttles_pkey PRIMARY KEY (key),
    CONSTRAINT throttles_key_length CHECK (octet_length(key) = 32)
);
CREATE INDEX throttles_update_time_idx ON auth.throttles (update_time);

-- Which account a call with an idempotency key made, so that its repetition
-- makes no other. No reference, for an account may be deleted, which the
-- repetition is told. It counts for a day.
CREATE TABLE auth.idempotency_keys (
    -- A MAC of the caller, the method and the key; of the request without secrets.
    name         bytea       NOT NULL,
    payload      bytea       NOT NULL,
    -- Unset when it sent a link instead.
    account_id   uuid,
    create_time  timestamptz NOT NULL,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (name),
    CONSTRAINT idempotency_keys_name_length CHECK (octet_length(name) = 32),
    CONSTRAINT idempotency_keys_payload_length CHECK (octet_length(payload) = 32)
);
CREATE INDEX idempotency_keys_create_time_idx ON auth.idempotency_keys (create_time);

-- Append-only: everything that changes or tries an identity. It holds ids,
-- never an email or a secret. Three functions of the tables' owner may do more:
-- one lets go of what is old, one forgets from where an erased person came, one
-- counts a refusal that is there already.
CREATE TABLE auth.audit_events (
    id           uuid        NOT NULL,
    create_time  timestamptz NOT NULL DEFAULT now(),
    event        text        NOT NULL,
    outcome      text        NOT NULL,
    -- Why it was refused, as an error reason.
    reason       text        NOT NULL DEFAULT '',
    -- The account that it concerns, when there is one, and who asked.
    account_id   uuid,
    actor_id     uuid,
    session_id   uuid,
    ip_address   text        NOT NULL DEFAULT '',
    user_agent   text        NOT NULL DEFAULT '',
    request_id   text        NOT NULL DEFAULT '',
    -- Refusals of one kind are one row for each account or network and minute:
    -- how many they were, and a MAC of what they have in common.
    count           integer     NOT NULL DEFAULT 1,
    refusal_key     bytea,
    refusal_minute  timestamptz,
    CONSTRAINT audit_events_pkey PRIMARY KEY (id)
);
CREATE UNIQUE INDEX audit_events_refusal_key ON auth.audit_events (refusal_key, refusal_minute) WHERE refusal_key IS NOT NULL;
-- The list walks the few kinds of events within each of these, and each kind by
-- its id, which is made of the time.
CREATE INDEX audit_events_event_idx ON auth.audit_events (event, outcome, id);
CREATE INDEX audit_events_account_id_idx ON auth.audit_events (account_id, event, outcome, id);
CREATE INDEX audit_events_actor_id_idx ON auth.audit_events (actor_id, event, outcome, id);

-- What was applied, in one row: internal/schema keeps it, the service reads it.
CREATE TABLE auth.applied_schema (
    number        integer     NOT NULL,
    -- Of the text that was applied, and of the tables as they then were: while
    -- both still hold, there is nothing to do.
    source_hash   bytea       NOT NULL,
    catalog_hash  bytea       NOT NULL,
    apply_time    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT applied_schema_number_positive CHECK (number > 0)
);
CREATE UNIQUE INDEX applied_schema_one_row ON auth.applied_schema ((true));

-- users ---------------------------------------------------------------------

CREATE TABLE users.profiles (
    id               uuid        NOT NULL,
    first_name       text        NOT NULL DEFAULT '',
    last_name        text        NOT NULL DEFAULT '',
    locale           text        NOT NULL DEFAULT '',
    -- The version of the fields above, which answers show as the etag.
    version          bigint      NOT NULL DEFAULT 1,
    create_time      timestamptz NOT NULL,
    update_time      timestamptz NOT NULL DEFAULT now(),
    -- Copies of what auth owns, kept by the relay, for searching only. Two
    -- accounts that exchange emails may both hold one for a moment here: it is
    -- not unique.
    email            text        NOT NULL,
    status           text        NOT NULL,
    account_version  bigint      NOT NULL,
    CONSTRAINT profiles_pkey PRIMARY KEY (id),
    CONSTRAINT profiles_status_known CHECK (status IN ('active', 'disabled'))
);
-- Each order of listing, alone and within a status. A collation stands within
-- lower's argument, as part of an expression: Atlas doesn't see a key's own.
CREATE INDEX profiles_create_time_idx ON users.profiles (create_time, id);
CREATE INDEX profiles_status_create_time_idx ON users.profiles (status, create_time, id);
CREATE INDEX profiles_email_order_idx ON users.profiles (lower(email COLLATE "C"), id);
CREATE INDEX profiles_status_email_order_idx ON users.profiles (status, lower(email COLLATE "C"), id);
-- Each way of searching by a prefix, beside the email's, which its order serves.
-- Names are folded by Unicode's rules even where the database's locale is C; the
-- whole name's index serves the first name too.
CREATE INDEX profiles_name_prefix_idx ON users.profiles (lower((first_name || ' ' || last_name) COLLATE "und-x-icu") text_pattern_ops);
CREATE INDEX profiles_last_name_prefix_idx ON users.profiles (lower(last_name COLLATE "und-x-icu") text_pattern_ops);

-- Accounts that were deleted: the relay must not bring them back. Each goes after
-- a year, when no news of it can be on the way.
CREATE TABLE users.tombstones (
    id               uuid        NOT NULL,
    account_version  bigint      NOT NULL,
    delete_time      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT tombstones_pkey PRIMARY KEY (id)
);
CREATE INDEX tombstones_delete_time_idx ON users.tombstones (delete_time);

-- As auth.changes.
CREATE TABLE users.changes (
    id           uuid        NOT NULL DEFAULT gen_random_uuid(),
    xid          xid8        NOT NULL DEFAULT pg_current_xact_id(),
    tag          text        NOT NULL,
    create_time  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT changes_pkey PRIMARY KEY (id)
);
CREATE INDEX changes_xid_idx ON users.changes (xid);
CREATE INDEX changes_create_time_idx ON users.changes (create_time);

-- As auth.applied_schema: each service reads the number in its own schema.
CREATE TABLE users.applied_schema (
    number        integer     NOT NULL,
    source_hash   bytea       NOT NULL,
    catalog_hash  bytea       NOT NULL,
    apply_time    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT applied_schema_number_positive CHECK (number > 0)
);
CREATE UNIQUE INDEX applied_schema_one_row ON users.applied_schema ((true));
