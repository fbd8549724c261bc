-- Accounts of Django's own user model as JSON lines for gatehouse admin import. A password
-- that begins with "!" is none.
SELECT json_strip_nulls(json_build_object(
    'email', email,
    'password_hash', CASE WHEN password NOT LIKE '!%' THEN nullif(password, '') END,
    'first_name', first_name,
    'last_name', last_name,
    'status', CASE WHEN is_active THEN 'active' ELSE 'disabled' END))
FROM auth_user
WHERE email <> ''
ORDER BY id;
