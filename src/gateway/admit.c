/*
 * gateway/admit - whether a request shows a key that may come in.
 *
 * The key stands in `Authorization: Bearer KEY` or in `x-api-key`.  Only what has
 * the form of one of our keys is hashed; anything else is a key for an engine,
 * which is passed on.  A key of ours never is.
 */
#include <openssl/evp.h>
#include <stdio.h>

#include "gateway/internal.h"
#include "gateway/keyring.h"

enum { KEY_TEXT_MAX = 256 };

static const struct span key_begin = {"sk-segue-", 9};

/* What a field shows as a key; n is 0 if it does not. */
static struct span credential(const struct http_field *f)
{
    if (f->id == HTTP_FIELD_X_API_KEY)
        return f->value;
    if (f->id != HTTP_FIELD_AUTHORIZATION || f->value.n < 8 ||
        !span_eq_nocase(span_of(f->value.p, 7), SPAN_LIT("bearer ")))
        return span_of(NULL, 0);
    return span_trim(span_of(f->value.p + 7, f->value.n - 7));
}

bool admit_is_key(const struct http_field *f)
{
    return span_starts(credential(f), key_begin);
}

static struct api_key *find(struct worker *w, const struct keyring *k, struct span text)
{
    unsigned char sha256[KEY_HASH_BYTES];

    if (!w->digest) {
        w->digest = EVP_MD_CTX_new();
        ALWAYS(w->digest && EVP_DigestInit_ex(w->digest, EVP_sha256(), NULL) == 1);
    } else {
        ALWAYS(EVP_DigestInit_ex(w->digest, NULL, NULL) == 1);
    }
    ALWAYS(EVP_DigestUpdate(w->digest, text.p, text.n) == 1);
    ALWAYS(EVP_DigestFinal_ex(w->digest, sha256, NULL) == 1);
    return keyring_find(k, sha256);
}

static void refuse(struct client *c, const char *text)
{
    client_error_headers(c, GATEWAY_ERROR_INVALID_KEY, "WWW-Authenticate: Bearer\r\n",
                         "%s; `segue key add NAME` on the server makes one", text);
}

bool admit(struct client *c, const struct http_request_head *head)
{
    const struct keyring *k = c->worker->view->table->keyring;
    bool shown = false;

    if (!span_starts(head->path, SPAN_LIT("/v1/")))
        return true;
    for (size_t i = 0; i < head->nfields; i++) {
        struct span text = credential(&head->fields[i]);
        if (text.n == 0)
            continue;
        shown = true;
        if (text.n > KEY_TEXT_MAX || !span_starts(text, key_begin))
            continue;
        c->key = find(c->worker, k, text);
        if (c->key)
            return true;
    }
    if (!k->required)
        return true;
    refuse(c, shown ? "the API key is not known here, or was revoked"
                    : "an API key is needed, as `Authorization: Bearer KEY` or `x-api-key: KEY`");
    return false;
}
