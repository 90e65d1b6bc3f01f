/*
 * tree - see tree.h.
 *
 * libyaml's events are read one at a time; read_node() is called with the first
 * event of a node and leaves after its last.  A NULL from it means that the
 * text cannot be read any further (a syntax error, too deep).
 */
#include "config/tree.h"

#include <stdlib.h>
#include <yaml.h>

#include "base/alloc.h"
#include "base/utf8.h"

struct source {
    yaml_parser_t parser;
    struct span text;    /* borrowed; what is parsed */
    struct diags *diags; /* borrowed */
};

static struct node *node_new(enum node_kind kind, yaml_mark_t at)
{
    struct node *node = NEW(struct node);

    node->kind = kind;
    node->line = (unsigned)at.line + 1;
    node->column = (unsigned)at.column + 1;
    return node;
}

void tree_free(struct node *node)
{
    if (!node)
        return;
    for (size_t i = 0; i < node->n; i++) {
        if (node->keys)
            tree_free(node->keys[i]);
        tree_free(node->items[i]);
    }
    free(node->keys);
    free(node->items);
    free(node->text);
    free(node);
}

struct node *tree_scalar(const char *text)
{
    struct node *node = NEW(struct node);

    node->text = str_dup(text);
    return node;
}

static const struct node *find(const struct node *map, const char *key, bool want_key)
{
    for (size_t i = 0; map && map->kind == NODE_MAP && i < map->n; i++)
        if (map->keys[i]->kind == NODE_SCALAR && strcmp(map->keys[i]->text, key) == 0)
            return want_key ? map->keys[i] : map->items[i];
    return NULL;
}

const struct node *tree_get(const struct node *map, const char *key)
{
    return find(map, key, false);
}

const struct node *tree_get_key(const struct node *map, const char *key)
{
    return find(map, key, true);
}

bool node_is_null(const struct node *node)
{
    return node->kind == NODE_SCALAR && node->plain &&
           (!*node->text || !strcmp(node->text, "~") || !strcmp(node->text, "null"));
}

const char *node_kind_name(const struct node *node)
{
    return node->kind == NODE_MAP ? "a map" : node->kind == NODE_LIST ? "a list" : "text";
}

/* Where byte `at` of the text stands. */
static void position(struct span text, size_t at, unsigned *line, unsigned *column)
{
    *line = *column = 1;
    for (size_t i = 0; i < at; i++) {
        if (text.p[i] == '\n') {
            ++*line;
            *column = 1;
        } else if (((unsigned char)text.p[i] & 0xc0) != 0x80) {
            ++*column;
        }
    }
}

/* libyaml's words, with its context where that says more. */
static void report_syntax(struct source *s)
{
    const yaml_parser_t *p = &s->parser;
    unsigned line = (unsigned)p->problem_mark.line + 1;
    unsigned column = (unsigned)p->problem_mark.column + 1;

    /* Its reader is below lines and knows only the byte. */
    if (p->error == YAML_READER_ERROR && p->problem_offset <= s->text.n)
        position(s->text, p->problem_offset, &line, &column);
    diag_error(s->diags, line, column, "not valid YAML: %s%s%s",
               p->problem ? p->problem : "it cannot be read", p->context ? ", " : "",
               p->context ? p->context : "");
}

static bool next(struct source *s, yaml_event_t *event)
{
    if (yaml_parser_parse(&s->parser, event))
        return true;
    report_syntax(s);
    return false;
}

static void check_extras(struct source *s, yaml_mark_t at, const yaml_char_t *anchor,
                         const yaml_char_t *tag)
{
    unsigned line = (unsigned)at.line + 1, column = (unsigned)at.column + 1;

    if (anchor)
        diag_error(s->diags, line, column,
                   "anchors (&%s) are not understood here; write the value where it is used",
                   (const char *)anchor);
    if (tag)
        diag_error(s->diags, line, column, "tags (%s) are not understood here; leave it out",
                   (const char *)tag);
}

static struct node *read_node(struct source *s, yaml_event_t *event, unsigned depth);

/* Whether the node may be a key of `map` now; says what is wrong otherwise. */
static bool key_ok(struct source *s, const struct node *map, const struct node *key)
{
    if (key->kind == NODE_BROKEN)
        return false;
    if (key->kind != NODE_SCALAR) {
        diag_error(s->diags, key->line, key->column, "a key must be one word, not %s",
                   node_kind_name(key));
        return false;
    }
    const struct node *first = tree_get_key(map, key->text);
    if (first)
        diag_error(s->diags, key->line, key->column, "'%s' stands twice; first on line %u",
                   key->text, first->line);
    return !first;
}

static void append(struct node *parent, struct node *key, struct node *item)
{
    parent->items = mem_grow(parent->items, (parent->n + 1) * sizeof(struct node *));
    parent->items[parent->n] = item;
    if (key) {
        parent->keys = mem_grow(parent->keys, (parent->n + 1) * sizeof(struct node *));
        parent->keys[parent->n] = key;
    }
    parent->n++;
}

/* Fills a map or a list up to its end event. */
static bool read_children(struct source *s, struct node *parent, unsigned depth)
{
    yaml_event_type_t end =
        parent->kind == NODE_MAP ? YAML_MAPPING_END_EVENT : YAML_SEQUENCE_END_EVENT;
    yaml_event_t event;

    for (;;) {
        if (!next(s, &event))
            return false;
        if (event.type == end) {
            yaml_event_delete(&event);
            return true;
        }
        struct node *first = read_node(s, &event, depth + 1);
        if (!first)
            return false;
        if (parent->kind == NODE_LIST) {
            append(parent, NULL, first);
            continue;
        }
        struct node *value = next(s, &event) ? read_node(s, &event, depth + 1) : NULL;
        if (value && key_ok(s, parent, first)) {
            append(parent, first, value);
            continue;
        }
        tree_free(first);
        tree_free(value);
        if (!value)
            return false;
    }
}

static struct node *read_scalar(struct source *s, const yaml_event_t *event)
{
    struct node *node = node_new(NODE_SCALAR, event->start_mark);
    struct span text = span_of((const char *)event->data.scalar.value, event->data.scalar.length);

    check_extras(s, event->start_mark, event->data.scalar.anchor, event->data.scalar.tag);
    node->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    if (memchr(text.p, '\0', text.n)) {
        diag_error(s->diags, node->line, node->column, "the text holds a zero byte");
        node->kind = NODE_BROKEN;
    }
    node->text = span_dup(text);
    return node;
}

/* Takes the event over. */
static struct node *read_node(struct source *s, yaml_event_t *event, unsigned depth)
{
    struct node *node = NULL;
    yaml_mark_t at = event->start_mark;

    if (depth > TREE_DEPTH_MAX) {
        diag_error(s->diags, (unsigned)at.line + 1, (unsigned)at.column + 1,
                   "nested more than %d levels deep", TREE_DEPTH_MAX);
    } else if (event->type == YAML_SCALAR_EVENT) {
        node = read_scalar(s, event);
    } else if (event->type == YAML_ALIAS_EVENT) {
        diag_error(s->diags, (unsigned)at.line + 1, (unsigned)at.column + 1,
                   "aliases (*%s) are not understood here; write the value out",
                   (const char *)event->data.alias.anchor);
        node = node_new(NODE_BROKEN, at);
    } else if (event->type == YAML_MAPPING_START_EVENT) {
        node = node_new(NODE_MAP, at);
        check_extras(s, at, event->data.mapping_start.anchor, event->data.mapping_start.tag);
    } else {
        ALWAYS(event->type == YAML_SEQUENCE_START_EVENT);
        node = node_new(NODE_LIST, at);
        check_extras(s, at, event->data.sequence_start.anchor, event->data.sequence_start.tag);
    }
    yaml_event_delete(event);
    if (node && (node->kind == NODE_MAP || node->kind == NODE_LIST) &&
        !read_children(s, node, depth)) {
        tree_free(node);
        return NULL;
    }
    return node;
}

/* Size and encoding; false when it is not worth parsing. */
static bool text_ok(struct span text, struct diags *d)
{
    unsigned line, column;
    size_t at = 0, n;

    if (text.n > TREE_BYTES_MAX) {
        diag_error(d, 0, 0, "it has %zu bytes; a configuration has at most %d", text.n,
                   TREE_BYTES_MAX);
        return false;
    }
    while (at < text.n && (n = utf8_length(text.p + at, text.n - at)) > 0)
        at += n;
    if (at < text.n) {
        position(text, at, &line, &column);
        diag_error(d, line, column, "not UTF-8: byte 0x%02x", (unsigned char)text.p[at]);
        return false;
    }
    return true;
}

/* The stream's only document, or NULL. */
static struct node *read_document(struct source *s)
{
    struct node *root = NULL;
    yaml_event_t event;

    while (next(s, &event)) {
        if (event.type == YAML_STREAM_END_EVENT) {
            if (!root)
                diag_error(s->diags, 1, 1, "the file is empty; at least `models` is needed");
            yaml_event_delete(&event);
            return root;
        }
        if (event.type == YAML_DOCUMENT_START_EVENT && root) {
            diag_error(s->diags, (unsigned)event.start_mark.line + 1,
                       (unsigned)event.start_mark.column + 1,
                       "a second document begins here; a configuration is one document");
            yaml_event_delete(&event);
            return root;
        }
        if (event.type == YAML_STREAM_START_EVENT || event.type == YAML_DOCUMENT_START_EVENT ||
            event.type == YAML_DOCUMENT_END_EVENT) {
            yaml_event_delete(&event);
            continue;
        }
        root = read_node(s, &event, 1);
        if (!root)
            return NULL;
    }
    tree_free(root);
    return NULL;
}

struct node *tree_read(struct span text, struct diags *d)
{
    struct source s = {.text = text, .diags = d};

    if (text.n >= 3 && memcmp(text.p, "\xef\xbb\xbf", 3) == 0) {
        text.p += 3; /* a byte order mark, as some editors write it */
        text.n -= 3;
        s.text = text;
    }
    if (!text_ok(text, d))
        return NULL;
    ALWAYS(yaml_parser_initialize(&s.parser));
    yaml_parser_set_encoding(&s.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&s.parser, (const unsigned char *)(text.p ? text.p : ""), text.n);
    struct node *root = read_document(&s);
    yaml_parser_delete(&s.parser);
    return root;
}
