/*
 * The JSON scanner against jansson: both accept or both refuse a text, both
 * read the same model from it; and after another model was put in its place
 * the text is still valid and the rest of its bytes are the same.
 */
#include "base/buf.h"
#include "json_reference.h"
#include "json/scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { MODEL_ROOM = 256 };

static void splice(struct span body, struct span value)
{
    static const char other[] = "\"hy-mt@v2\"";
    struct json_member model = {"model"};
    struct buf b = {0};
    size_t before = (size_t)(value.p - body.p), after = body.n - before - value.n, at, length;
    char text[MODEL_ROOM];
    bool is_string;

    buf_add(&b, body.p, before);
    buf_add_str(&b, other);
    buf_add(&b, value.p + value.n, after);
    ALWAYS(json_scan(span_of(b.data, b.len), &model, 1, &at, NULL) == JSON_NONE);
    ALWAYS(model.kind == JSON_STRING && span_eq_str(model.value, other));
    ALWAYS((size_t)(model.value.p - b.data) == before);
    enum reference says = reference_scan(b.data, b.len, &is_string, text, sizeof(text), &length);
    ALWAYS(says != REFERENCE_REFUSES);
    ALWAYS(says == REFERENCE_LIMIT || (is_string && strcmp(text, "hy-mt@v2") == 0));
    buf_fini(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct json_member members[] = {{"model"}, {"stream"}, {"max_tokens"}};
    struct json_member *model = &members[0];
    struct span body = span_of((const char *)data, n);
    char text[MODEL_ROOM], decoded[MODEL_ROOM];
    size_t at, length = 0;
    bool empty, is_string;

    enum json_fault fault = json_scan(body, members, 3, &at, &empty);
    ALWAYS(at <= n);
    enum reference says = reference_scan(body.p, n, &is_string, text, sizeof(text), &length);
    if (fault == JSON_NONE || fault == JSON_NOT_OBJECT)
        ALWAYS(says != REFERENCE_REFUSES);
    else if (fault != JSON_DEEP && fault != JSON_DUPLICATE)
        ALWAYS(says != REFERENCE_ACCEPTS);
    if (fault != JSON_NONE)
        return 0;

    if (model->kind != JSON_ABSENT) {
        ALWAYS(model->value.n > 0 && model->value.p > body.p);
        ALWAYS(model->value.p + model->value.n < body.p + n);
        splice(body, model->value);
    }
    if (says == REFERENCE_ACCEPTS)
        ALWAYS(is_string == (model->kind == JSON_STRING));
    if (model->kind == JSON_STRING) {
        int got = json_scan_string(model->value, decoded, sizeof(decoded));
        if (got >= 0)
            ALWAYS(memchr(decoded, '\0', (size_t)got) == NULL && decoded[got] == '\0');
        if (is_string && got >= 0)
            ALWAYS((size_t)got == length && memcmp(decoded, text, length) == 0);
        if (is_string && got < 0)
            ALWAYS(length >= sizeof(decoded) || memchr(text, '\0', length));
    }
    return 0;
}
