-- The columns of Django's auth_user that the export reads.
CREATE TABLE auth_user (
    id integer GENERATED ALWAYS AS IDENTITY, email varchar(254) NOT NULL, password varchar(128) NOT NULL,
    first_name varchar(150) NOT NULL, last_name varchar(150) NOT NULL, is_active boolean NOT NULL);
INSERT INTO auth_user (email, password, first_name, last_name, is_active) VALUES
    ('pbkdf2@django.example', 'pbkdf2_sha256$260000$hXVKMuvoT7TLlbuY3EfClG$QSutODgjgUDiGMViSWVYSg3ozxMSpvUV9z8ESPkkEHA=', 'Ada', 'Lovelace', true),
    ('argon2@django.example', 'argon2$argon2id$v=19$m=102400,t=2,p=8$ejJHSzFibTVEeWhSYXdmdklPcDJ2VQ$uAZtM63hVJo3cfGF3OF4rQ', 'Grace', 'Lovelace', true),
    ('scrypt@django.example', 'scrypt$16384$q7Jd0PzYc1mWn3Xk5Rv8Tb$8$5$JwKu1xpvoNLSekZkrN80k/DEz3K3ZR2VSM5ND9hsQ1PrW6VwpfqY6MZixqm6NlC/7VSKdvuki79nA/RmjnDasQ==', 'Joan', 'Lovelace', true),
    ('bcrypt@django.example', 'bcrypt$$2b$12$Bb.X8l2.pXcZt5AGlJDKnuEvGaX4BPpS.SJu42uCQNEIKgGBp9sOG', 'Mary', 'Lovelace', true),
    ('bcryptsha@django.example', 'bcrypt_sha256$$2b$12$FjjfvnzOLhsoWqLhHNVYR.gK39lKMKQdYoKGoP/Li11Kb9HUhQGtS', 'Edith', 'Lovelace', true),
    ('inactive@django.example', 'pbkdf2_sha256$260000$hXVKMuvoT7TLlbuY3EfClG$QSutODgjgUDiGMViSWVYSg3ozxMSpvUV9z8ESPkkEHA=', 'Out', 'Lovelace', false),
    ('unusable@django.example', '!cDhCZbCeiXiLHsU4KMxaO5r46cHIXK5A2s9gvuZy', 'None', 'Lovelace', true),
    ('', '!', 'left-out', '', true);
