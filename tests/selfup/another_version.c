/* A program of another version of this one, as far as the supervisor can tell: no script, and what it does is in a script. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv) {
    const char *script = getenv("ANOTHER_VERSION");
    if (script == NULL || argc < 2) return 2;
    char python[] = "python3";
    argv[0] = (char *)script;
    char **words = calloc((size_t)argc + 2, sizeof *words);
    if (words == NULL) return 2;
    words[0] = python;
    for (int i = 0; i < argc; i++) words[i + 1] = argv[i];
    execvp(python, words);
    perror(python);
    return 127;
}
