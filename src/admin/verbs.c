/*
 * verbs - routing and the check of arguments; no IO.
 */
#include "admin/verbs.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "http/url.h"

enum { ARG_NAME_MAX = 32, ARG_TEXT_MAX = 4096 };

static const struct admin_verb verbs[ADMIN_NVERBS] = {
#define X(id, m, p, a, arguments, h)    \
    [VERB_##id] = {.name = #id,         \
                   .method = HTTP_##m,  \
                   .method_name = #m,   \
                   .path = p,           \
                   .access = ADMIN_##a, \
                   .args = arguments,   \
                   .help = h},
    ADMIN_VERBS(X)
#undef X
};

const struct admin_verb *admin_verb(enum admin_verb_id id)
{
    return &verbs[id];
}

/* --- paths -------------------------------------------------------------------------------- */

/* "{id}" in the pattern matches a run of digits; all else matches itself. */
static bool path_matches(const char *pattern, struct span path, int64_t *number)
{
    size_t at = 0;

    while (*pattern) {
        if (strncmp(pattern, "{id}", 4) == 0) {
            struct span rest = span_of(path.p + at, path.n - at);
            struct span digits = span_of(rest.p, span_index(rest, '/'));
            uint64_t n;

            if (!span_u64(digits, &n) || n > INT64_MAX)
                return false;
            *number = (int64_t)n;
            at += digits.n;
            pattern += 4;
            continue;
        }
        if (at == path.n || path.p[at] != *pattern)
            return false;
        at++, pattern++;
    }
    return at == path.n;
}

static int not_found(struct span path, struct err *err)
{
    struct buf list = {0};

    for (int i = 0; i < ADMIN_NVERBS; i++)
        buf_addf(&list, "%s%s %s", i ? ", " : "", verbs[i].method_name, verbs[i].path);
    err_set(err, 404, "there is no " SPAN_FMT " here; there is: %s",
            (int)(path.n < 200 ? path.n : 200), path.p, buf_cstr(&list));
    buf_fini(&list);
    return -1;
}

int admin_verb_find(enum http_method method, struct span path, int64_t *number, const char **allow,
                    struct err *err)
{
    const struct admin_verb *other = NULL;

    *number = 0;
    for (int i = 0; i < ADMIN_NVERBS; i++) {
        if (!path_matches(verbs[i].path, path, number))
            continue;
        if (verbs[i].method == method)
            return i;
        other = &verbs[i];
    }
    if (!other)
        return not_found(path, err);
    *allow = other->method_name;
    return err_set(err, 405, "%s takes %s only", other->path, other->method_name);
}

/* --- arguments ---------------------------------------------------------------------------- */

struct argument {
    char name[ARG_NAME_MAX];
    bool optional;
    char type; /* s, i, b, l */
};

/* Reads the next argument of a row; false at its end. */
static bool next_argument(const char **row, struct argument *a)
{
    const char *p = *row + strspn(*row, " ");
    size_t n = strcspn(p, "?: ");

    if (!*p)
        return false;
    ALWAYS(n > 0 && n < sizeof(a->name));
    memcpy(a->name, p, n);
    a->name[n] = '\0';
    p += n;
    a->optional = *p == '?';
    p += a->optional;
    ALWAYS(p[0] == ':' && strchr("sibl", p[1]));
    a->type = p[1];
    *row = p + 2;
    return true;
}

static bool find_argument(const char *row, const char *name, struct argument *a)
{
    while (next_argument(&row, a))
        if (strcmp(a->name, name) == 0)
            return true;
    return false;
}

static int bad_type(const struct argument *a, struct err *err)
{
    return err_set(err, 400, "'%s' must be %s", a->name,
                   a->type == 's'   ? "a string that is not empty"
                   : a->type == 'i' ? "a whole number from 0"
                   : a->type == 'l' ? "a list of strings that are not empty"
                                    : "true or false");
}

static bool is_text(const json_t *value)
{
    return json_is_string(value) && json_string_length(value) > 0 &&
           strlen(json_string_value(value)) == json_string_length(value);
}

static bool is_list(const json_t *value)
{
    const json_t *item;
    size_t i;

    json_array_foreach(value, i, item)
    {
        if (!is_text(item))
            return false;
    }
    return json_is_array(value);
}

static bool right_type(const struct argument *a, const json_t *value)
{
    switch (a->type) {
    case 's':
        return is_text(value);
    case 'l':
        return is_list(value);
    case 'i':
        return json_is_integer(value) && json_integer_value(value) >= 0;
    default:
        return json_is_boolean(value);
    }
}

static int unknown(const struct admin_verb *v, const char *name, struct err *err)
{
    return err_set(err, 400, "%s does not know '%.64s'; it takes: %s", v->name, name,
                   *v->args ? v->args : "nothing");
}

/* Text from a query as the argument's type; NULL if it is not of it. */
static json_t *typed(const struct argument *a, const char *text)
{
    uint64_t n;

    ALWAYS(a->type != 'l'); /* those come in bodies */
    if (a->type == 's')
        return *text ? json_string(text) : NULL; /* NULL too if it is not UTF-8 */
    if (a->type == 'i')
        return span_u64(span_str(text), &n) && n <= INT64_MAX ? json_integer((json_int_t)n) : NULL;
    return strcmp(text, "true") == 0    ? json_true()
           : strcmp(text, "false") == 0 ? json_false()
                                        : NULL;
}

/* One "name=value" of a query. */
static int add_pair(const struct admin_verb *v, struct span pair, json_t *out, struct err *err)
{
    size_t eq = span_index(pair, '=');
    struct span raw = eq < pair.n ? span_of(pair.p + eq + 1, pair.n - eq - 1) : span_of(NULL, 0);
    char name[ARG_TEXT_MAX], text[ARG_TEXT_MAX];
    struct argument a;

    if (!url_decode(span_of(pair.p, eq), name, sizeof(name)) ||
        !url_decode(raw, text, sizeof(text)))
        return err_set(err, 400, "the query is not percent-encoded as RFC 3986 says, or too long");
    if (!find_argument(v->args, name, &a))
        return unknown(v, name, err);
    if (json_object_get(out, name))
        return err_set(err, 400, "'%s' stands twice in the query", name);
    json_t *value = typed(&a, text);
    if (!value)
        return bad_type(&a, err);
    json_object_set_new(out, name, value);
    return 0;
}

static int read_query(const struct admin_verb *v, struct span query, json_t *out, struct err *err)
{
    while (query.n) {
        size_t n = span_index(query, '&');

        if (n && add_pair(v, span_of(query.p, n), out, err) != 0)
            return -1;
        n += n < query.n;
        query = span_of(query.p + n, query.n - n);
    }
    return 0;
}

static int read_body(const struct admin_verb *v, struct span body, json_t *out, struct err *err)
{
    json_error_t why;
    struct argument a;
    const char *name;
    json_t *value;
    int result = 0;

    if (!span_trim(body).n)
        return 0;
    json_t *json = json_loadb(body.p, body.n, JSON_REJECT_DUPLICATES, &why);
    if (!json)
        return err_set(err, 400, "the body is not valid JSON: %s (line %d, column %d)", why.text,
                       why.line, why.column);
    if (!json_is_object(json))
        result = err_set(err, 400, "the body is JSON but not an object");
    json_object_foreach(json, name, value)
    {
        if (result == 0 && !find_argument(v->args, name, &a))
            result = unknown(v, name, err);
        if (result == 0 && !right_type(&a, value))
            result = bad_type(&a, err);
        if (result == 0)
            json_object_set(out, name, value);
    }
    json_decref(json);
    return result;
}

static int nothing_missing(const struct admin_verb *v, const json_t *args, struct err *err)
{
    const char *row = v->args;
    struct argument a;

    while (next_argument(&row, &a))
        if (!a.optional && !json_object_get(args, a.name))
            return err_set(err, 400, "%s needs '%s'; it takes: %s", v->name, a.name, v->args);
    return 0;
}

json_t *admin_verb_args(const struct admin_verb *v, struct span query, struct span body,
                        struct err *err)
{
    json_t *out = json_object();
    int result = v->method == HTTP_GET ? read_query(v, query, out, err)
                 : query.n ? err_set(err, 400, "%s takes its arguments from the body", v->name)
                           : read_body(v, body, out, err);

    if (result == 0)
        result = nothing_missing(v, out, err);
    if (result == 0)
        return out;
    json_decref(out);
    return NULL;
}

json_t *admin_verbs_json(void)
{
    json_t *list = json_array();

    for (int i = 0; i < ADMIN_NVERBS; i++)
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "name", verbs[i].name,
                                        "method", verbs[i].method_name, "path", verbs[i].path,
                                        "access", verbs[i].access == ADMIN_READ ? "read" : "write",
                                        "arguments", verbs[i].args, "help", verbs[i].help));
    return json_pack("{s:o}", "verbs", list);
}
