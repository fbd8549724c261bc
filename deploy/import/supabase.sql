-- Accounts of a Supabase project as JSON lines for gatehouse admin import.
-- Anonymous and deleted users are left out.
SELECT json_strip_nulls(json_build_object(
    'id', id,
    'email', email,
    'email_verified', email_confirmed_at IS NOT NULL,
    'password_hash', nullif(encrypted_password, ''),
    'first_name', coalesce(raw_user_meta_data->>'first_name', split_part(raw_user_meta_data->>'full_name', ' ', 1)),
    'last_name', coalesce(raw_user_meta_data->>'last_name', nullif(substring(raw_user_meta_data->>'full_name' FROM '\s+(.*)$'), '')),
    'status', CASE WHEN banned_until > now() THEN 'disabled' ELSE 'active' END))
FROM auth.users
WHERE email <> '' AND deleted_at IS NULL
ORDER BY created_at;
