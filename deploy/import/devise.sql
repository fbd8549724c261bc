-- Accounts of Devise (Ruby on Rails) as JSON lines for gatehouse admin import. confirmed_at
-- exists only with the module confirmable: without it, no email counts as verified.
SELECT json_strip_nulls(json_build_object(
    'email', email,
    'email_verified', to_jsonb(u)->>'confirmed_at' IS NOT NULL,
    'password_hash', nullif(encrypted_password, ''),
    'first_name', to_jsonb(u)->>'first_name',
    'last_name', to_jsonb(u)->>'last_name'))
FROM users u
WHERE email <> ''
ORDER BY id;
