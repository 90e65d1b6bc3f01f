/*
 * receipt - what each update left behind, as a chain.
 *
 *   hash(n) = sha256( hash(n-1) as hexadecimal text, "" for the first
 *                     + the receipt as compact JSON, its `number` included,
 *                       without `hash` and `previous_hash` )
 *
 * Whoever changes, removes or exchanges an old receipt breaks every later hash.
 */
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "store/internal.h"

enum { HASH_TEXT_MAX = 2 * EVP_MAX_MD_SIZE + 1 };

static void chain_hash(const char *previous, const char *text, char out[HASH_TEXT_MAX])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int n;
    char *all = str_fmt("%s%s", previous, text);

    ALWAYS(EVP_Digest(all, strlen(all), digest, &n, EVP_sha256(), NULL) == 1);
    free(all);
    for (unsigned int i = 0; i < n; i++)
        snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

static int receipt_append(struct store *s, const char *model, json_t *receipt, int64_t *number,
                          const char *doing, struct err *err)
{
    char hash[HASH_TEXT_MAX];
    json_t *rows = statement_rows(s, STATEMENT_RECEIPT_LAST, NULL, 0, doing, err);
    const json_t *last = json_array_get(rows, 0);
    const char *previous = last ? row_text(last, "hash") : "";
    json_t *own = json_copy(receipt);

    if (!rows) {
        json_decref(own);
        return -1;
    }
    *number = row_number(last, "number") + 1;
    json_object_del(own, "hash");
    json_object_del(own, "previous_hash");
    json_object_set_new(own, "number", json_integer(*number));
    char *text = json_dumps(own, JSON_COMPACT);
    ALWAYS(text);
    chain_hash(previous, text, hash);
    int result = statement_run(s, STATEMENT_RECEIPT_PUT,
                               VALUES(NUMBER(*number), TEXT(model), TEXT(text), TEXT(previous),
                                      TEXT(hash), NUMBER(clock_wall_ms())),
                               doing, err);
    free(text);
    json_decref(own);
    json_decref(rows);
    return result;
}

int store_receipt_put(struct store *s, const char *model, json_t *receipt, int64_t *number,
                      struct err *err)
{
    const char *doing = "keep the receipt";

    ALWAYS(json_is_object(receipt));
    if (transaction_begin(s, doing, err) != 0)
        return -1;
    return transaction_end(s, receipt_append(s, model, receipt, number, doing, err), doing, err);
}

json_t *store_receipt_get(struct store *s, const char *model, int64_t number, struct err *err)
{
    json_t *rows = statement_rows(s, STATEMENT_RECEIPT_GET, VALUES(TEXT(model), NUMBER(number)),
                                  "read the receipt", err);
    const json_t *row = json_array_get(rows, 0);
    json_t *receipt = NULL;

    if (row) {
        receipt = json_loads(row_text(row, "text"), 0, NULL);
        if (!receipt)
            err_set(err, 500, "receipt %lld in %s is not JSON any more",
                    (long long)row_number(row, "number"), s->file);
        json_object_set(receipt, "previous_hash", json_object_get(row, "previous_hash"));
        json_object_set(receipt, "hash", json_object_get(row, "hash"));
    } else if (rows && number) {
        err_set(err, 404, "there is no receipt %lld%s%s", (long long)number,
                model ? " of model " : "", model ? model : "");
    } else if (rows) {
        err_set(err, 404, "there is no receipt yet%s%s", model ? " of model " : "",
                model ? model : "");
    }
    json_decref(rows);
    return receipt;
}

int store_receipts_check(struct store *s, struct err *err)
{
    json_t *rows = statement_rows(s, STATEMENT_RECEIPTS, NULL, 0, "read the receipts", err);
    const char *previous = "";
    json_t *row;
    size_t i;
    int result = rows ? 0 : -1;

    json_array_foreach(rows, i, row)
    {
        char hash[HASH_TEXT_MAX];

        chain_hash(previous, row_text(row, "text"), hash);
        if (row_number(row, "number") != (int64_t)i + 1 ||
            strcmp(row_text(row, "previous_hash"), previous) != 0 ||
            strcmp(row_text(row, "hash"), hash) != 0) {
            result = err_set(err, 500, "the chain of receipts in %s is broken at number %lld",
                             s->file, (long long)row_number(row, "number"));
            break;
        }
        previous = row_text(row, "hash");
    }
    json_decref(rows);
    return result;
}
