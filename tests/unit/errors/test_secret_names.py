"""Which names announce a secret, in both directions."""

from __future__ import annotations

import pytest

from voicethere.errors.secret_names import Sensitivity, sensitivity, words_of


def names(text: str) -> list[str]:
    return text.split()


SECRET = names(
    "password passwd pwd PASSWORD Password userPassword user_password db-password new_password "
    "password2 password_confirmation PGPASSWORD MYSQL_PWD DB_PASS smtp_pass passphrase passcode "
    "secret client_secret clientSecret ClientSecret CLIENT-SECRET app_secret secret_key secretKey "
    "secret_key_base aws_secret_access_key token access_token accessToken refresh-token id_token "
    "csrf_token authtoken bot_token X-Auth-Token x-amz-security-token token_value api_key apiKey "
    "ApiKey APIKey api-key X-API-Key apikey OPENAI_API_KEY openai_key private_key privateKey "
    "private_key_pem signing_key encryption_key access_key ssh_key session_key "
    "Ocp-Apim-Subscription-Key AccountKey authorization Authorization Proxy-Authorization "
    "authorization_header auth basic_auth cookie Cookie Set-Cookie session_cookie sessionCookie "
    "cookie_header PHPSESSID credential credit_card creditCard card_number cardNumber cc_number cvv "
    "cvc cvv2 security_code pin otp totp ssn jwt bearer signature X-Amz-Signature sig seed_phrase "
    "service_account_credentials_json[0] password_hash"
)

PLAIN = names(
    "author authors authored authority authorship tokenizer tokenize tokens_used token_count "
    "token_type token_expires_at tokens_per_second monkey donkey keyboard keys key_id key keyword "
    "primary_key public_key foreign_key sort_key cache_key idempotency_key password_reset_url "
    "password_length password_policy password_changed_at passwordless secretary secretariat "
    "secret_name secret_arn cookie_consent cookies_enabled cookie_domain passenger passage bypass "
    "compass card_type card cardinal discard credit credits code error_code status_code pinned "
    "pinging opinion spin cryptocurrency signed design function_signature next_page_token "
    "pagination_token_count eos_token session session_id sid userId tier name email message "
    "authorized_users authentication_method auth_type basic page_number account_number"
)

COUNT = names(
    "tokens max_tokens maxTokens total_tokens completion_tokens prompt_tokens num_tokens cookies "
    "secrets passwords api_keys has_password is_token requires_auth use_cookie max_token pass "
    "no_secret"
)


@pytest.mark.parametrize("name", SECRET)
def test_names_of_secrets(name: str) -> None:
    expected = Sensitivity.COUNT if "credentials" in name else Sensitivity.SECRET
    assert sensitivity(name) is expected


@pytest.mark.parametrize("name", PLAIN)
def test_names_that_only_look_like_it(name: str) -> None:
    assert sensitivity(name) is Sensitivity.PLAIN


@pytest.mark.parametrize("name", COUNT)
def test_names_that_may_be_counts_and_flags(name: str) -> None:
    assert sensitivity(name) is Sensitivity.COUNT


def test_names_are_split_at_case_punctuation_and_digits() -> None:
    assert words_of("X-APIKey2_newValue") == ["x", "api", "key", "2", "new", "value"]


@pytest.mark.parametrize("name", ["", "---", "é", "\ud800", "password" * 10_000, "a" * 100_000])
def test_any_text_may_be_a_name(name: str) -> None:
    assert sensitivity(name) in Sensitivity
