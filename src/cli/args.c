/* args - see args.h. */
#include "cli/args.h"

#include <string.h>

#include "config/nearest.h"

static const struct option_row rows[] = {
#define X(id, name, brief, value, help) {name, brief, value, help},
    OPTIONS(X)
#undef X
};

const struct option_row *option_row(enum option o)
{
    return &rows[o];
}

/* The row of "--name", "--name=value" or "-n"; NOPTIONS if there is none. */
static int find(const char *word, const char **inline_value)
{
    size_t n = strcspn(word, "=");

    for (int i = 0; i < NOPTIONS; i++) {
        bool full = strlen(rows[i].name) == n && memcmp(rows[i].name, word, n) == 0;
        if (full || (rows[i].brief && strcmp(rows[i].brief, word) == 0)) {
            *inline_value = full && word[n] ? word + n + 1 : NULL;
            return i;
        }
    }
    return NOPTIONS;
}

static int unknown(const char *word, struct err *err)
{
    const char *names[NOPTIONS];

    for (int i = 0; i < NOPTIONS; i++)
        names[i] = rows[i].name;
    const char *near = nearest_word(word, names, NOPTIONS);
    return err_set(err, 400, "unknown option %s%s%s%s", word, near ? "; did you mean " : "",
                   near ? near : "", near ? "?" : "");
}

/* Takes one option and its value; *i is moved past them. */
static int take_option(struct args *args, int argc, char **argv, int *i, struct err *err)
{
    const char *value = NULL, *word = argv[*i];
    int o = find(word, &value);

    if (o == NOPTIONS)
        return unknown(word, err);
    if (!rows[o].value && value)
        return err_set(err, 400, "option %s takes no value", rows[o].name);
    if (rows[o].value && !value) {
        if (*i + 1 >= argc)
            return err_set(err, 400, "option %s needs a value: %s %s", word, rows[o].name,
                           rows[o].value);
        value = argv[++*i];
    }
    if (o == OPTION_MODEL && args->nmodels == MODELS_MAX)
        return err_set(err, 400, "%s stands more than %d times", word, MODELS_MAX);
    if (o == OPTION_MODEL)
        args->models[args->nmodels++] = value;
    args->options[o] = value ? value : "";
    return 0;
}

int args_parse(struct args *args, int argc, char **argv, struct err *err)
{
    bool only_words = false;

    *args = (struct args){0};
    for (int i = 1; i < argc; i++) {
        if (!only_words && strcmp(argv[i], "--") == 0) {
            only_words = true;
        } else if (!only_words && argv[i][0] == '-' && argv[i][1]) {
            if (take_option(args, argc, argv, &i, err) < 0)
                return -1;
        } else if (args->nwords == WORDS_MAX) {
            return err_set(err, 400, "too many words; a text with spaces needs quotes");
        } else {
            args->words[args->nwords++] = argv[i];
        }
    }
    return 0;
}
