/*
 * describe - docs/configuration.md, written from the table of keys.
 */
#include <stdio.h>

#include "config/internal.h"

static const char intro[] =
    "# Configuration\n"
    "\n"
    "*This page is made from the table of keys in `src/config/keys.c`; `segue config keys` prints "
    "it.*\n"
    "\n"
    "Segue reads one YAML file, `segue.yaml` unless `-c` says otherwise. `segue config check FILE` "
    "reads it,\n"
    "says everything that is wrong with it (file, line, column, what would be right), and starts "
    "nothing.\n"
    "\n"
    "```yaml\n"
    "listen: 127.0.0.1:8080\n"
    "state: ./run\n"
    "models:\n"
    "  tiny-mt:\n"
    "    serve: v1\n"
    "    versions:\n"
    "      v1: { engine: builtin, path: models/tiny-mt-v1.gguf }\n"
    "  hy-mt:\n"
    "    serve: v1\n"
    "    aliases: [tencent/HY-MT1.5-1.8B]\n"
    "    update: { drain: 2m, settle: 10s }\n"
    "    versions:\n"
    "      v1: { engine: openai, url: \"http://127.0.0.1:8000\", served_model_name: hy-mt-v1 }\n"
    "      v2: { engine: openai, url: \"http://127.0.0.1:8001\", served_model_name: hy-mt-v2 }\n"
    "```\n"
    "\n"
    "- **Durations** have a unit: `500ms`, `10s`, `2m`, `1h`, `1d`; a plain number is seconds.\n"
    "- **Sizes** have a unit: `64k`, `8MiB`, `1g` (powers of 1024); a plain number is bytes. "
    "`KB` and `MB` are refused.\n"
    "- **Shares** are fractions (`0.05`) or percentages (`5%`).\n"
    "- **Paths** that do not begin with `/` are relative to the file's own folder.\n"
    "- Anchors, aliases, tags and a second document are refused, and so is a key that stands "
    "twice.\n";

static void add_cell(struct buf *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '\n')
            buf_add_str(out, "\\n");
        else if (*text == '|')
            buf_add_str(out, "\\|");
        else
            buf_add_char(out, *text);
    }
}

/* What a value may be: type, choices, range. */
static void add_values(struct buf *out, const struct key *key)
{
    char range[KEY_RANGE_MAX];

    key_range_text(key, range);
    if (*range) {
        const char *kind = key->type == KEY_NUMBER     ? "number"
                           : key->type == KEY_SIZE     ? "size"
                           : key->type == KEY_DURATION ? "duration"
                                                       : "share";
        buf_addf(out, "%s, %s", kind, range);
    } else if (key->choices) {
        for (size_t i = 0; key->choices[i]; i++)
            buf_addf(out, "%s`%s`", i ? ", " : "", key->choices[i]);
    } else {
        add_cell(out, key_type_text(key->type));
    }
}

static void add_default(struct buf *out, const struct key *key)
{
    if (key->fallback) {
        buf_add_char(out, '`');
        add_cell(out, key->fallback);
        buf_add_char(out, '`');
    } else if (key->fallback_note) {
        add_cell(out, key->fallback_note);
    } else {
        buf_add_str(out, key->required ? "**needed**" : "");
    }
}

static void add_engines(struct buf *out, const struct key *key)
{
    size_t n = 0;

    if (!key->engines) {
        buf_add_str(out, "all | ");
        return;
    }
    for (int i = 0; config_engine_name((enum config_engine)i); i++)
        if (key->engines & UINT32_C(1) << i)
            buf_addf(out, "%s%s", n++ ? ", " : "", config_engine_name((enum config_engine)i));
    buf_add_str(out, " | ");
}

static void add_scope(struct buf *out, enum scope scope)
{
    bool version = scope == SCOPE_VERSION;

    if (scope == SCOPE_ROOT)
        buf_add_str(out, "\n## Top level\n");
    else
        buf_addf(out, "\n## `%s`\n", scope_path(scope));
    buf_addf(out, "\n%s\n\n", scope_note(scope));
    buf_addf(out, "| key | %svalue | default | meaning |\n|---|%s---|---|---|\n",
             version ? "engines | " : "", version ? "---|" : "");
    KEYS_OF(key, scope)
    {
        buf_addf(out, "| `%s` | ", key->name);
        if (version)
            add_engines(out, key);
        add_values(out, key);
        buf_add_str(out, " | ");
        add_default(out, key);
        buf_add_str(out, " | ");
        add_cell(out, key->help);
        buf_add_str(out, " |\n");
    }
}

void config_describe(struct buf *out)
{
    buf_add_str(out, intro);
    for (int s = 0; s < NSCOPES; s++)
        add_scope(out, (enum scope)s);
}
