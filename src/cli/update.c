/*
 * update - deploy, switch, rollback: commands that change what serves.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "cli/ask.h"
#include "cli/internal.h"
#include "cli/screen.h"

/* The manager has another working folder: paths go to it whole. */
static char *whole_path(const char *path)
{
    char folder[PATH_MAX];
    char *real = realpath(path, NULL);

    if (real || path[0] == '/' || !getcwd(folder, sizeof(folder)))
        return real ? real : str_dup(path);
    return str_fmt("%s/%s", folder, path);
}

/* "v1 -> v2 in 412 us" for an update that has happened within the request. */
static void say_switched(const json_t *answer)
{
    char took[NUMBER_TEXT_MAX];
    int64_t receipt = json_int(answer, "receipt");

    if (json_is_true(json_object_get(answer, "unchanged"))) {
        printf("%s: %s serves already%s\n", json_text(answer, "model", "?"),
               json_text(answer, "to", "?"),
               json_is_true(json_object_get(answer, "started_again"))
                   ? "; its engines that were given up are started again"
                   : "");
        return;
    }
    printf("%s: %s -> %s in %s (epoch %lld", json_text(answer, "model", "?"),
           json_text(answer, "from", "?"), json_text(answer, "to", "?"),
           time_text((double)json_int(answer, "switch_us") / 1e6, took),
           (long long)json_int(answer, "epoch"));
    if (receipt)
        printf(", receipt %lld", (long long)receipt);
    printf(")\n");
}

/* What follows from an answer: it is done, or an operation has begun. */
static int after(const struct args *args, json_t *answer, const char *title)
{
    int64_t operation = json_int(answer, "operation");
    int code = CLI_DONE;

    if (operation && !args_has(args, OPTION_NO_WAIT))
        code = follow_operation(args, operation, title);
    else if (args_has(args, OPTION_JSON))
        say_json(answer);
    else if (operation)
        printf("%s has begun (operation %lld); `segue status -w` shows it\n", title,
               (long long)operation);
    else
        say_switched(answer);
    json_decref(answer);
    return code;
}

int run_deploy(const struct args *args)
{
    char *path = whole_path(args->words[1]);
    json_t *body = json_pack("{s:s, s:s}", "model", args->words[0], "path", path), *answer;

    free(path);
    if (!body)
        return say_error(CLI_USAGE, "the model's name or the path is not UTF-8");
    if (args_has(args, OPTION_VERSION))
        json_object_set_new(body, "version", json_string(args->options[OPTION_VERSION]));
    if (args_has(args, OPTION_ENGINE))
        json_object_set_new(body, "engine", json_string(args->options[OPTION_ENGINE]));
    int code = ask_admin(args, "POST", "/admin/v1/deploy", body, &answer);
    if (code != CLI_DONE)
        return code;

    char *title =
        str_fmt("deploy of %s to %s", json_text(answer, "version", args->words[1]), args->words[0]);
    code = after(args, answer, title);
    free(title);
    return code;
}

static int move_route(const struct args *args, const char *target, json_t *body, const char *verb)
{
    json_t *answer;

    if (!body)
        return say_error(CLI_USAGE, "a name is not UTF-8");
    int code = ask_admin(args, "POST", target, body, &answer);
    if (code != CLI_DONE)
        return code;
    char *title = str_fmt("%s of %s", verb, args->words[0]);
    code = after(args, answer, title);
    free(title);
    return code;
}

int run_switch(const struct args *args)
{
    return move_route(args, "/admin/v1/switch",
                      json_pack("{s:s, s:s}", "model", args->words[0], "version", args->words[1]),
                      "switch");
}

int run_rollback(const struct args *args)
{
    return move_route(args, "/admin/v1/rollback", json_pack("{s:s}", "model", args->words[0]),
                      "rollback");
}
