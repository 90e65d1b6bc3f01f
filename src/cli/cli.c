/*
 * cli - see cli.h.
 *
 * The table of commands, and what is made from it: look-up, usage, help.
 */
#include "cli/cli.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "cli/internal.h"
#include "cli/screen.h"
#include "config/nearest.h"

struct command {
    const char *name;      /* one or two words */
    const char *arguments; /* as usage shows them */
    int min, max;          /* how many words */
    uint32_t options;      /* further than COMMON */
    const char *help;
    int (*run)(const struct args *args); /* NULL: not a client command */
};

// clang-format off
#define BIT OPTION_BIT
#define COMMON (BIT(SOCKET) | BIT(JSON) | BIT(HELP))

static int run_help(const struct args *args);

static const struct command commands[] = {
    {"serve",        "",                0, 0, BIT(CONFIG), "run segue: manager, gateway and engines", NULL},
    {"status",       "",                0, 0, BIT(WATCH), "what runs, which version serves, how it is doing", run_status},
    {"top",          "",                0, 0, BIT(ONCE) | BIT(DELAY), "rates, latencies and engines, live; q ends it", run_top},
    {"deploy",       "MODEL PATH",      2, 2, BIT(VERSION) | BIT(ENGINE) | BIT(NO_WAIT), "start a new version and switch to it when it has answered", run_deploy},
    {"switch",       "MODEL VERSION",   2, 2, BIT(NO_WAIT), "give all new requests to a version", run_switch},
    {"rollback",     "MODEL",           1, 1, BIT(NO_WAIT), "go back to the version that served before", run_rollback},
    {"versions",     "[MODEL]",         0, 1, BIT(MODEL), "the versions that are known", run_versions},
    {"rollouts",     "",                0, 0, BIT(MODEL), "the updates so far, newest first", run_rollouts},
    {"receipt",      "[NUMBER]",        0, 1, BIT(MODEL), "what an update did; the newest, if no number is given", run_receipt},
    {"translate",    "TEXT|-",          1, 1, BIT(TO) | BIT(FROM) | BIT(MODEL) | BIT(ADDRESS) | BIT(VERBOSE), "translate a text, or standard input", run_translate},
    {"logs",         "REPLICA", 1, 1, BIT(LINES), "the last lines that an engine wrote", run_logs},
    {"key add",      "NAME",            1, 1, BIT(MODEL) | BIT(CONCURRENCY) | BIT(RATE), "make an API key and show it once; --model may stand several times", run_key_add},
    {"key list",     "",                0, 0, 0, "the API keys: names and limits", run_key_list},
    {"key revoke",   "NAME",            1, 1, 0, "refuse an API key from now on", run_key_revoke},
    {"stop",         "",                0, 0, BIT(ENGINES), "end segue when the answers under way have ended", run_stop},
    {"config check", "[FILE]",          0, 1, BIT(CONFIG), "read a configuration and say what is wrong with it", run_config_check},
    {"config keys",  "",                0, 0, 0, "every key of the configuration, as Markdown", run_config_keys},
    {"version",      "",                0, 0, 0, "the version of this program", run_version},
    {"help",         "[COMMAND]",       0, 2, 0, "this list, or the help of a command", run_help},
};
// clang-format on

int say_error(int code, const char *fmt, ...)
{
    struct buf text = {0};
    va_list args;

    va_start(args, fmt);
    char line[4096];
    vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);
    ink_add(&text, INK_RED, screen_has_colour(stderr), "segue:");
    buf_add_char(&text, ' ');
    /* An engine's last words may be many lines; each stays a line. */
    for (const char *at = line; at; at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL) {
        char *one = span_dup(span_of(at, strcspn(at, "\n")));
        if (at != line)
            buf_add_str(&text, "\n  ");
        ink_add(&text, INK_PLAIN, false, one);
        free(one);
    }
    fflush(stdout);
    fprintf(stderr, "%s\n", buf_cstr(&text));
    buf_fini(&text);
    return code;
}

void say_json(const json_t *object)
{
    json_dumpf(object, stdout, JSON_COMPACT);
    putchar('\n');
}

/* --- help ------------------------------------------------------------- */

static void usage(const struct command *c, FILE *out)
{
    fprintf(out, "usage: segue %s%s%s [OPTIONS]\n", c->name, *c->arguments ? " " : "",
            c->arguments);
}

static void help_command(const struct command *c)
{
    uint32_t options = COMMON | c->options;

    usage(c, stdout);
    printf("\n%s\n\n", c->help);
    for (int i = 0; i < NOPTIONS; i++) {
        const struct option_row *o = option_row((enum option)i);
        char left[64];
        if (!(options & UINT32_C(1) << i))
            continue;
        snprintf(left, sizeof(left), "%s%s%s%s%s", o->brief ? o->brief : "",
                 o->brief ? ", " : "    ", o->name, o->value ? " " : "", o->value ? o->value : "");
        printf("  %-25s  %s\n", left, o->help);
    }
}

/* The commands whose first word this is: `key`, `config`. False if there is none. */
static bool help_group(const char *word)
{
    size_t n = strlen(word);
    bool any = false;

    for (size_t i = 0; i < COUNT_OF(commands); i++) {
        const struct command *c = &commands[i];
        char left[64];

        if (strncmp(c->name, word, n) != 0 || c->name[n] != ' ')
            continue;
        snprintf(left, sizeof(left), "%s %s", c->name, c->arguments);
        printf("  %-23s  %s\n", left, c->help);
        any = true;
    }
    return any;
}

static void help_all(void)
{
    printf("segue serves a language model and replaces it while people use it.\n\n"
           "usage: segue COMMAND [WORDS] [OPTIONS]\n\n");
    for (size_t i = 0; i < COUNT_OF(commands); i++) {
        char left[64];
        snprintf(left, sizeof(left), "%s %s", commands[i].name, commands[i].arguments);
        printf("  %-23s  %s\n", left, commands[i].help);
    }
    printf("\n`segue COMMAND --help` shows the options of a command.\n"
           "Exit codes: 0 done, 1 refused or failed, 2 wrong usage or configuration, "
           "3 no server, 4 rolled back.\n");
}

/* --- look-up ---------------------------------------------------------- */

/* The command that the words begin with, and how many words its name has. */
static const struct command *find(const struct args *args, int *used)
{
    for (int n = args->nwords < 2 ? args->nwords : 2; n > 0; n--) {
        char *name =
            n == 2 ? str_fmt("%s %s", args->words[0], args->words[1]) : str_dup(args->words[0]);
        for (size_t i = 0; i < COUNT_OF(commands); i++) {
            if (strcmp(commands[i].name, name) == 0) {
                free(name);
                *used = n;
                return &commands[i];
            }
        }
        free(name);
    }
    return NULL;
}

static int unknown(const struct args *args)
{
    const char *names[COUNT_OF(commands)];
    bool config = strcmp(args->words[0], "config") == 0;
    bool key = strcmp(args->words[0], "key") == 0;

    for (size_t i = 0; i < COUNT_OF(commands); i++)
        names[i] = commands[i].name;
    char *name = (config || key) && args->nwords > 1
                     ? str_fmt("%s %s", args->words[0], args->words[1])
                     : str_dup(args->words[0]);
    const char *near = nearest_word(name, names, COUNT_OF(names));
    int code = config && args->nwords == 1
                   ? say_error(CLI_USAGE, "config what? `config check` or `config keys`")
               : key && args->nwords == 1
                   ? say_error(CLI_USAGE, "key what? `key add`, `key list` or `key revoke`")
               : near ? say_error(CLI_USAGE, "no command '%s'; did you mean '%s'?", name, near)
                      : say_error(CLI_USAGE, "no command '%s'; `segue help` lists them", name);
    free(name);
    return code;
}

static int run_help(const struct args *args)
{
    int used;
    const struct command *c = args->nwords ? find(args, &used) : NULL;

    if (args->nwords && !c)
        return args->nwords == 1 && help_group(args->words[0]) ? CLI_DONE : unknown(args);
    if (c)
        help_command(c);
    else
        help_all();
    return CLI_DONE;
}

/* Options that the command does not know, and how many words it takes. */
static int check_usage(const struct command *c, const struct args *args)
{
    for (int i = 0; i < NOPTIONS; i++)
        if (args->options[i] && !((COMMON | c->options) & UINT32_C(1) << i))
            return say_error(CLI_USAGE, "%s does not take %s; `segue %s --help` lists its options",
                             c->name, option_row((enum option)i)->name, c->name);
    if (args->nwords < c->min || args->nwords > c->max) {
        say_error(CLI_USAGE, "%s takes %s%s", c->name, *c->arguments ? c->arguments : "no words",
                  args->nwords > c->max && c->max ? "; a text with spaces needs quotes" : "");
        usage(c, stderr);
        return CLI_USAGE;
    }
    return CLI_DONE;
}

static int run(struct args *args)
{
    int used = 0;

    if (args->nwords == 0 && args_has(args, OPTION_HELP)) {
        help_all();
        return CLI_DONE;
    }
    if (args->nwords == 0) {
        help_all();
        return CLI_USAGE;
    }
    const struct command *c = find(args, &used);
    if (!c && args_has(args, OPTION_HELP) && help_group(args->words[0]))
        return CLI_DONE;
    if (!c)
        return unknown(args);
    if (args_has(args, OPTION_HELP)) {
        help_command(c);
        return CLI_DONE;
    }
    memmove(args->words, args->words + used, sizeof(args->words) - sizeof(args->words[0]) * used);
    args->nwords -= used;
    int code = check_usage(c, args);
    if (code != CLI_DONE)
        return code;
    return c->run ? c->run(args) : say_error(CLI_USAGE, "%s is not a client command", c->name);
}

const char *cli_command(int argc, char **argv)
{
    struct args args;

    return args_parse(&args, argc, argv, NULL) == 0 && args.nwords ? args.words[0] : NULL;
}

int cli_main(int argc, char **argv)
{
    struct args args;
    struct err err;
    static char version[] = "version";
    char *asked[] = {argv[0], version, NULL};
    int code;

    signal(SIGPIPE, SIG_IGN);
    /* `--version` alone asks for ours; with deploy it names one. */
    if (argc == 2 && strcmp(argv[1], "--version") == 0)
        argv = asked;
    if (args_parse(&args, argc, argv, &err) < 0)
        code = say_error(CLI_USAGE, "%s", err.text);
    else
        code = run(&args);
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == CLI_DONE)
        code = say_error(CLI_REFUSED, "standard output: %s", strerror(errno));
    return code;
}
