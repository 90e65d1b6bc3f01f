/* judge - see judge.h. */
#include "fleet/judge.h"

#include <jansson.h>
#include <regex.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/utf8.h"

/* "!!!" is what broken weights say; "42" or "好" may be an answer. */
enum { REPEATED_LEAST = 3, EXCERPT_MAX = 120 };

void judge_excerpt(struct span body, char *out, size_t room)
{
    size_t n = 0;

    for (size_t i = 0, length; i < body.n; i += length) {
        length = utf8_length(body.p + i, body.n - i);
        bool plain = length > 0 && (unsigned char)body.p[i] >= 0x20 && body.p[i] != 0x7f;

        if (!plain)
            length = 1;
        if (n + length >= room)
            break;
        if (plain)
            memcpy(out + n, body.p + i, length);
        else
            out[n] = ' ';
        n += length;
    }
    out[n] = '\0';
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static struct span trim(struct span s)
{
    while (s.n && is_space(s.p[0]))
        s.p++, s.n--;
    while (s.n && is_space(s.p[s.n - 1]))
        s.n--;
    return s;
}

static bool one_character_repeated(struct span s)
{
    size_t length = 0, count = 0;
    const char *first = NULL;

    for (size_t i = 0, n; i < s.n; i += n) {
        n = utf8_length(s.p + i, s.n - i);
        if (n == 0)
            n = 1;
        if (n == 1 && is_space(s.p[i]))
            continue;
        if (!first) {
            first = s.p + i;
            length = n;
        } else if (n != length || memcmp(first, s.p + i, n) != 0) {
            return false;
        }
        count++;
    }
    return count >= REPEATED_LEAST;
}

static int matches(const char *expect, const char *text, struct err *err)
{
    regex_t re;
    char why[128], said[EXCERPT_MAX];
    int rc = regcomp(&re, expect, REG_EXTENDED | REG_ICASE | REG_NOSUB);

    if (rc != 0) {
        regerror(rc, &re, why, sizeof(why));
        return err_set(err, 400, "`ready.expect` is not a regular expression: %s", why);
    }
    rc = regexec(&re, text, 0, NULL, 0);
    regfree(&re);
    if (rc == 0)
        return 0;
    judge_excerpt(span_str(text), said, sizeof(said));
    return err_set(err, 502,
                   "the answer to the known question is \"%s\", which does not match \"%s\" "
                   "(`ready.expect`)",
                   said, expect);
}

static const char *content_of(const json_t *root)
{
    const json_t *choice = json_array_get(json_object_get(root, "choices"), 0);

    return json_string_value(json_object_get(json_object_get(choice, "message"), "content"));
}

static int judge_text(struct span text, const char *expect, char **out, struct err *err)
{
    char said[EXCERPT_MAX];

    if (text.n == 0)
        return err_set(err, 502, "the answer to the known question is empty");
    if (one_character_repeated(text)) {
        judge_excerpt(text, said, sizeof(said));
        return err_set(err, 502,
                       "the answer to the known question is one character repeated: \"%s\"", said);
    }
    *out = span_dup(text);
    if (expect && matches(expect, *out, err) != 0) {
        free(*out);
        *out = NULL;
        return -1;
    }
    return 0;
}

int judge_answer(struct span body, const char *expect, char **text, struct err *err)
{
    json_error_t fault;
    char said[EXCERPT_MAX];
    json_t *root = json_loadb(body.p ? body.p : "", body.n, 0, &fault);

    *text = NULL;
    if (!root) {
        judge_excerpt(body, said, sizeof(said));
        return err_set(err, 502, "the answer to the known question is not whole JSON (%s): %s",
                       fault.text, said);
    }
    const char *content = content_of(root);
    int result;
    if (content) {
        result = judge_text(trim(span_str(content)), expect, text, err);
    } else {
        judge_excerpt(body, said, sizeof(said));
        result =
            err_set(err, 502,
                    "the answer to the known question has no choices[0].message.content: %s", said);
    }
    json_decref(root);
    return result;
}

int judge_models(struct span body, const char *name, struct err *err)
{
    json_t *root = json_loadb(body.p ? body.p : "", body.n, 0, NULL);
    json_t *model, *list = json_object_get(root, "data");
    struct buf found = {0};
    size_t i;
    bool there = false;

    json_array_foreach(list, i, model)
    {
        const char *id = json_string_value(json_object_get(model, "id"));
        char shown[EXCERPT_MAX];

        if (!id)
            continue;
        there = there || strcmp(id, name) == 0;
        judge_excerpt(span_str(id), shown, sizeof(shown));
        if (i < 4)
            buf_addf(&found, "%s'%s'", buf_pending(&found) ? ", " : "", shown);
    }
    int result = 0;
    if (!json_is_array(list)) {
        char said[EXCERPT_MAX];
        judge_excerpt(body, said, sizeof(said));
        result = err_set(err, 502, "/v1/models is not an OpenAI list of models: %s", said);
    } else if (!there) {
        result = err_set(err, 502,
                         "it serves %s, not '%s': another engine answers there, or "
                         "`served_model_name` must be changed",
                         buf_pending(&found) ? buf_cstr(&found) : "no model", name);
    }
    buf_fini(&found);
    json_decref(root);
    return result;
}
