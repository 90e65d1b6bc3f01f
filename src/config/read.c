/*
 * read - from the tree to the members of struct config, one row of the table at
 * a time.
 *
 * A value that is wrong is reported and its default is taken, so that reading
 * goes on and the next fault is found too.  Faults that need more than one key
 * to be seen are check.c's.
 */
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "config/internal.h"
#include "config/nearest.h"
#include "config/units.h"
#include "http/url.h"

enum { SHOWN_MAX = 60 };

#define AT(node) (node)->line, (node)->column

static void *member(void *base, size_t offset)
{
    return (char *)base + offset;
}

/* Stores a number in a member of 1, 4 or 8 bytes. */
static void store(void *base, const struct key *key, uint64_t value)
{
    void *to = member(base, key->offset);

    if (key->width == 1)
        *(bool *)to = value != 0;
    else if (key->width == sizeof(uint32_t))
        *(uint32_t *)to = (uint32_t)value;
    else
        *(uint64_t *)to = value;
}

static void store_text(void *base, const struct key *key, char *owned)
{
    char **to = member(base, key->offset);

    free(*to);
    *to = owned;
}

/* What was written, short enough for a message. */
static const char *shown(const struct node *node, char out[SHOWN_MAX])
{
    if (node->kind != NODE_SCALAR)
        snprintf(out, SHOWN_MAX, "%s", node_kind_name(node));
    else if (node_is_null(node))
        snprintf(out, SHOWN_MAX, "nothing");
    else
        snprintf(out, SHOWN_MAX, "'%.48s%s'", node->text, strlen(node->text) > 48 ? "..." : "");
    return out;
}

static bool wrong_type(struct reader *r, const struct key *key, const struct node *node)
{
    char text[SHOWN_MAX];

    diag_error(r->diags, AT(node), "'%s' must be %s, not %s", key->name, key_type_text(key->type),
               shown(node, text));
    return false;
}

static bool has_control(const char *s, bool lines_ok)
{
    for (; *s; s++)
        if (((unsigned char)*s < 0x20 && !(lines_ok && (*s == '\n' || *s == '\t'))) || *s == 0x7f)
            return true;
    return false;
}

/* One word of text: not a map, not a list, not empty, no control bytes. */
static bool is_text(struct reader *r, const struct key *key, const struct node *node)
{
    if (node->kind == NODE_BROKEN)
        return false;
    if (node->kind != NODE_SCALAR || node_is_null(node))
        return wrong_type(r, key, node);
    if (has_control(node->text, key->type == KEY_PROSE)) {
        diag_error(r->diags, AT(node), "'%s' holds a control character", key->name);
        return false;
    }
    if (!*node->text) {
        diag_error(r->diags, AT(node), "'%s' is empty", key->name);
        return false;
    }
    return true;
}

/* --- numbers ---------------------------------------------------------- */

static bool read_number(struct reader *r, const struct key *key, const struct node *node,
                        void *base)
{
    struct span s = span_str(node->text);
    char range[KEY_RANGE_MAX];
    uint64_t value = 0;
    double share = 0;
    bool understood = key->type == KEY_NUMBER     ? span_u64(s, &value)
                      : key->type == KEY_SIZE     ? size_parse(s, &value)
                      : key->type == KEY_DURATION ? duration_parse(s, &value)
                                                  : share_parse(s, &share);

    if (!understood) {
        wrong_type(r, key, node);
        return false;
    }
    bool inside = key->type == KEY_SHARE
                      ? share * 10000 >= (double)key->min && share * 10000 <= (double)key->max
                      : value >= key->min && value <= key->max;
    if (!inside) {
        key_range_text(key, range);
        diag_error(r->diags, AT(node), "'%s' is out of range: %s; %s is allowed", key->name,
                   node->text, range);
        return false;
    }
    if (key->type == KEY_SHARE)
        *(double *)member(base, key->offset) = share;
    else
        store(base, key, value);
    return true;
}

static bool read_choice(struct reader *r, const struct key *key, const struct node *node,
                        void *base)
{
    struct buf text = {0};
    size_t n = 0;

    for (; key->choices[n]; n++) {
        if (strcmp(key->choices[n], node->text) != 0)
            continue;
        if (key->width == sizeof(char *))
            store_text(base, key, str_dup(node->text));
        else
            store(base, key, n);
        return true;
    }
    for (size_t i = 0; i < n; i++)
        buf_addf(&text, "%s%s", i ? (i + 1 == n ? " or " : ", ") : "", key->choices[i]);
    const char *near = nearest_word(node->text, key->choices, n);
    diag_error(r->diags, AT(node), "unknown %s '%.48s'; %s%s%sit is %s", key->name, node->text,
               near ? "did you mean '" : "", near ? near : "", near ? "'? " : "", buf_cstr(&text));
    buf_fini(&text);
    return false;
}

/* --- text ------------------------------------------------------------- */

char *path_absolute(const char *folder, const char *path)
{
    while (path[0] == '.' && path[1] == '/') {
        path += 2;
        while (*path == '/')
            path++;
    }
    if (path[0] == '/')
        return str_dup(path);
    if (path[0] == '\0' || strcmp(path, ".") == 0)
        return str_dup(folder);
    return str_fmt("%s%s%s", folder, folder[strlen(folder) - 1] == '/' ? "" : "/", path);
}

static bool read_url(struct reader *r, const struct key *key, const struct node *node, void *base)
{
    char address[ADDRESS_TEXT_MAX], prefix[ADDRESS_TEXT_MAX];
    bool is_unix = span_starts(span_str(node->text), SPAN_LIT("unix:"));
    struct err err;
    char *url;

    if (is_unix) {
        char *path = path_absolute(r->folder, node->text + strlen("unix:"));
        url = str_fmt("unix:%s", path);
        free(path);
    } else {
        url = str_dup(node->text);
    }
    if (url_split(url, address, prefix, &err) < 0) {
        diag_error(r->diags, AT(node), "'%s': %s", key->name, err.text);
        free(url);
        return false;
    }
    size_t n = strlen(prefix);
    if (n >= 3 && strcmp(prefix + n - 3, "/v1") == 0)
        diag_warning(r->diags, AT(node),
                     "'%s' ends with /v1, which is added to it again: without it, unless the "
                     "endpoint is at %s/v1/chat/completions",
                     key->name, prefix);
    store_text(base, key, url);
    return true;
}

static bool read_regex(struct reader *r, const struct key *key, const struct node *node, void *base)
{
    char why[128];
    regex_t regex;
    int rc = regcomp(&regex, node->text, REG_EXTENDED | REG_ICASE | REG_NOSUB);

    if (rc != 0) {
        regerror(rc, &regex, why, sizeof(why));
        diag_error(r->diags, AT(node), "'%s' is not a POSIX extended regular expression: %s",
                   key->name, why);
        return false;
    }
    regfree(&regex);
    store_text(base, key, str_dup(node->text));
    return true;
}

static bool read_name(struct reader *r, const struct key *key, const struct node *node, void *base)
{
    if (!config_name_ok(node->text)) {
        diag_error(r->diags, AT(node),
                   "'%s': '%.80s' is not a name (letters, digits, '.', '_', '-'; 1 to 64)",
                   key->name, node->text);
        return false;
    }
    store_text(base, key, str_dup(node->text));
    return true;
}

/* --- lists ------------------------------------------------------------ */

/* An alias may be what a model hub calls the model: "org/name:tag". */
static bool alias_ok(const char *s)
{
    size_t n = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-/:");

    return n > 0 && n <= 128 && s[n] == '\0';
}

/* One item in its final form, or NULL after a report. */
static char *read_item(struct reader *r, const struct key *key, const struct node *node)
{
    const char *why = NULL;
    char *address = NULL;

    if (key->type == KEY_WORDS && node->kind == NODE_SCALAR && !node->plain && !*node->text)
        return str_dup("");
    if (!is_text(r, key, node))
        return NULL;
    if (key->type == KEY_WORDS)
        return str_dup(node->text);
    if (key->type == KEY_ADDRESSES) {
        if (!listen_parse(node->text, &address, &why))
            diag_error(r->diags, AT(node), "'%s': '%.80s': %s", key->name, node->text, why);
        return address;
    }
    if (!alias_ok(node->text)) {
        diag_error(r->diags, AT(node),
                   "'%s': '%.80s' is not a name (letters, digits, '.', '_', '-', '/', ':'; "
                   "1 to 128)",
                   key->name, node->text);
        return NULL;
    }
    return str_dup(node->text);
}

static void strings_free(char **strings)
{
    for (char **s = strings; s && *s; s++)
        free(*s);
    free(strings);
}

static char **strings_copy(char *const *from)
{
    size_t n = 0;

    if (!from)
        return NULL;
    while (from[n])
        n++;
    char **to = mem_zero((n + 1) * sizeof(*to));
    for (size_t i = 0; i < n; i++)
        to[i] = str_dup(from[i]);
    return to;
}

static bool listed(char *const *strings, const char *s)
{
    for (; *strings; strings++)
        if (strcmp(*strings, s) == 0)
            return true;
    return false;
}

static bool read_list(struct reader *r, const struct key *key, const struct node *node, void *base)
{
    const struct node *one[] = {node};
    bool single = node->kind == NODE_SCALAR && key->type != KEY_WORDS;
    const struct node *const *items = single ? one : (const struct node *const *)node->items;
    size_t n = single ? 1 : node->n, filled = 0;

    if (node->kind == NODE_BROKEN)
        return false;
    if ((node->kind != NODE_LIST && !single) || (single && node_is_null(node)))
        return wrong_type(r, key, node);
    if (n == 0 && key->type != KEY_ALIASES && strcmp(key->name, "args") != 0) {
        diag_error(r->diags, AT(node), "'%s' is an empty list", key->name);
        return false;
    }
    char **strings = mem_zero((n + 1) * sizeof(*strings));
    for (size_t i = 0; i < n; i++) {
        char *item = read_item(r, key, items[i]);
        bool twice = item && key->type != KEY_WORDS && listed(strings, item);
        if (twice)
            diag_error(r->diags, AT(items[i]), "'%s' names %s twice", key->name, item);
        if (item && !twice)
            strings[filled++] = item;
        else
            free(item);
    }
    char ***to = member(base, key->offset);
    strings_free(*to);
    *to = strings;
    return true;
}

/* --- sections --------------------------------------------------------- */

/* Each name with its settings becomes one element of the array. */
static bool read_entries(struct reader *r, const struct key *key, const struct node *node,
                         void *base)
{
    if (node->kind == NODE_BROKEN)
        return false;
    if (node->kind != NODE_MAP)
        return wrong_type(r, key, node);
    if (node->n == 0) {
        diag_error(r->diags, AT(node), "'%s' is empty; at least one is needed", key->name);
        return false;
    }
    char *array = mem_zero(node->n * key->entry_size);
    *(void **)member(base, key->offset) = array;
    *(size_t *)member(base, key->count_offset) = node->n;
    for (size_t i = 0; i < node->n; i++) {
        const struct node *name = node->keys[i], *value = node->items[i];
        char *entry = array + i * key->entry_size;
        char text[SHOWN_MAX];
        *(char **)entry = str_dup(name->text);
        if (!config_name_ok(name->text))
            diag_error(r->diags, AT(name),
                       "'%.80s' is not a name (letters, digits, '.', '_', '-'; 1 to 64)",
                       name->text);
        if (value->kind == NODE_SCALAR || value->kind == NODE_LIST)
            diag_error(r->diags, AT(value), "'%s' must be a map of keys, not %s", name->text,
                       shown(value, text));
        read_scope(r, key->inner, value->kind == NODE_MAP ? value : NULL, entry);
    }
    return true;
}

static bool read_section(struct reader *r, const struct key *key, const struct node *node,
                         void *base)
{
    bool usable = node && node->kind == NODE_MAP;

    if (node && node->kind != NODE_MAP && node->kind != NODE_BROKEN)
        wrong_type(r, key, node);
    read_scope(r, key->inner, usable ? node : NULL, member(base, key->offset));
    return usable;
}

/* --- a row, a scope --------------------------------------------------- */

static bool read_value(struct reader *r, const struct key *key, const struct node *node, void *base)
{
    switch (key->type) {
    case KEY_SECTION:
        return read_section(r, key, node, base);
    case KEY_ENTRIES:
        return read_entries(r, key, node, base);
    case KEY_ADDRESSES:
    case KEY_ALIASES:
    case KEY_WORDS:
        return read_list(r, key, node, base);
    default:
        break;
    }
    if (!is_text(r, key, node))
        return false;
    switch (key->type) {
    case KEY_NUMBER:
    case KEY_SIZE:
    case KEY_DURATION:
    case KEY_SHARE:
        return read_number(r, key, node, base);
    case KEY_CHOICE:
        return read_choice(r, key, node, base);
    case KEY_NAME:
        return read_name(r, key, node, base);
    case KEY_URL:
        return read_url(r, key, node, base);
    case KEY_REGEX:
        return read_regex(r, key, node, base);
    case KEY_PATH:
        store_text(base, key, path_absolute(r->folder, node->text));
        return true;
    default:
        store_text(base, key, str_dup(node->text));
        return true;
    }
}

void keys_list(struct buf *out, enum scope scope, int engine)
{
    const char *last = NULL;
    size_t n = 0;

    KEYS_OF(key, scope)
    {
        if (engine >= 0 && key->engines && !(key->engines & UINT32_C(1) << engine))
            continue;
        if (last)
            buf_addf(out, "%s%s", n > 1 ? ", " : "", last);
        last = key->name;
        n++;
    }
    buf_addf(out, "%s%s", n > 1 ? " and " : "", last ? last : "");
}

static void report_unknown(struct reader *r, enum scope scope, const struct node *name)
{
    const char *words[64] = {0};
    size_t n = 0;
    struct buf list = {0};

    KEYS_OF(key, scope)
    {
        ALWAYS(n < COUNT_OF(words));
        words[n++] = key->name;
    }
    const char *near = nearest_word(name->text, words, n);
    const struct key *elsewhere = NULL;
    for (const struct key *key = keys; !near && key < keys + nkeys; key++)
        if (!elsewhere && strcmp(key->name, name->text) == 0)
            elsewhere = key;
    if (near) {
        diag_error(r->diags, AT(name), "unknown key '%.48s'; did you mean '%s'?", name->text, near);
    } else if (elsewhere) {
        const char *path = scope_path(elsewhere->scope);
        diag_error(r->diags, AT(name), "unknown key '%.48s' here; it belongs to %s%s", name->text,
                   *path ? path : "the top level", *path ? "" : " of the file");
    } else {
        keys_list(&list, scope, -1);
        diag_error(r->diags, AT(name), "unknown key '%.48s'; %s are known here", name->text,
                   buf_cstr(&list));
    }
    buf_fini(&list);
}

static const struct key *row(enum scope scope, const char *name)
{
    KEYS_OF(key, scope)
    {
        if (strcmp(key->name, name) == 0)
            return key;
    }
    return NULL;
}

static void take_default(struct reader *r, const struct key *key, void *base)
{
    if (key->type == KEY_SECTION) {
        read_section(r, key, NULL, base);
    } else if (key->fallback) {
        struct node *node = tree_scalar(key->fallback);
        ALWAYS(read_value(r, key, node, base));
        tree_free(node);
    }
}

void read_scope(struct reader *r, enum scope scope, const struct node *map, void *base)
{
    for (size_t i = 0; map && i < map->n; i++)
        if (!row(scope, map->keys[i]->text))
            report_unknown(r, scope, map->keys[i]);
    KEYS_OF(key, scope)
    {
        const struct node *value = tree_get(map, key->name);
        if (!value || (!read_value(r, key, value, base) && key->type != KEY_SECTION))
            take_default(r, key, base);
    }
}

/* --- release and copy, by the same rows -------------------------------- */

static bool is_string(const struct key *key)
{
    return key->type == KEY_TEXT || key->type == KEY_PROSE || key->type == KEY_REGEX ||
           key->type == KEY_NAME || key->type == KEY_PATH || key->type == KEY_URL ||
           (key->type == KEY_CHOICE && key->width == sizeof(char *));
}

static bool is_strings(const struct key *key)
{
    return key->type == KEY_ADDRESSES || key->type == KEY_ALIASES || key->type == KEY_WORDS;
}

void scope_fini(enum scope scope, void *base)
{
    KEYS_OF(key, scope)
    {
        void *at = member(base, key->offset);
        if (key->type == KEY_SECTION) {
            scope_fini(key->inner, at);
        } else if (key->type == KEY_ENTRIES) {
            char *array = *(char **)at;
            for (size_t i = 0; i < *(size_t *)member(base, key->count_offset); i++) {
                free(*(char **)(array + i * key->entry_size));
                scope_fini(key->inner, array + i * key->entry_size);
            }
            free(array);
        } else if (is_string(key)) {
            free(*(char **)at);
        } else if (is_strings(key)) {
            strings_free(*(char ***)at);
        }
    }
}

void scope_copy(enum scope scope, void *to, const void *from)
{
    KEYS_OF(key, scope)
    {
        const void *at = (const char *)from + key->offset;
        ALWAYS(key->type != KEY_SECTION && key->type != KEY_ENTRIES);
        if (is_string(key))
            *(char **)member(to, key->offset) = str_dup(*(char *const *)at);
        else if (is_strings(key))
            *(char ***)member(to, key->offset) = strings_copy(*(char **const *)at);
        else
            memcpy(member(to, key->offset), at, key->width);
    }
}
