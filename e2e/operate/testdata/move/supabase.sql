-- The columns of auth.users of a Supabase project that the export reads.
CREATE SCHEMA auth;
CREATE TABLE auth.users (
    id uuid NOT NULL, email varchar(255), encrypted_password varchar(255), email_confirmed_at timestamptz, raw_user_meta_data jsonb,
    banned_until timestamptz, deleted_at timestamptz, created_at timestamptz DEFAULT now());
INSERT INTO auth.users (id, email, encrypted_password, email_confirmed_at, raw_user_meta_data, banned_until, deleted_at) VALUES
    ('5f0c7f52-6b33-4b67-9c79-64d1f4a3a001', 'bcrypt@supabase.example', '$2a$10$Yk9SDfIxn8BwD/VCCSeuk.APtBzQyUyfFutFtkI355ORqve8zJR.C', now(), '{"full_name": "Ada King Lovelace"}', NULL, NULL),
    ('5f0c7f52-6b33-4b67-9c79-64d1f4a3a002', 'firebase@supabase.example', '$fbscrypt$v=1,n=14,r=8,p=1,ss=Bw==,sk=jxspr8Ki0RYycVU8zykbdLGjFQ3McFUH0uiiTvC8pVMXAn210wjLNmdZJzxUECKbm0QsEmYUSDzZvpjeJ9WmXA==$6slR9vGAGrOjVA==$9TyW598URaa+AYm8UeckSKEyTD8qMxzDDp3oSFcpskONLZrODc9HpU535eE+5r10dd6WhFYb5uMGEt2OwmmK+Q==', now(), '{"first_name": "Grace"}', NULL, NULL),
    ('5f0c7f52-6b33-4b67-9c79-64d1f4a3a003', 'banned@supabase.example', '$2a$10$GwOltBGAYG8O1vwBv1bjuejdPBlNzLBPfqfXJhpWkkwTo.D3kRbC2', now(), '{}', now() + interval '10 years', NULL),
    ('5f0c7f52-6b33-4b67-9c79-64d1f4a3a004', 'social@supabase.example', '', now(), NULL, NULL, NULL),
    ('5f0c7f52-6b33-4b67-9c79-64d1f4a3a005', 'left-out@supabase.example', '$2a$10$H0ga3Ku8A9qDv78FKIfyd.uLvLG5cAkb6dyW1umHsJwWpu4vtMrCe', now(), NULL, NULL, now()),
    ('5f0c7f52-6b33-4b67-9c79-64d1f4a3a006', NULL, NULL, NULL, NULL, NULL, NULL);
