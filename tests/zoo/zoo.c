/* The zoo: process trees that do what they can not to be ended. `zoo ADVERSARY CUE` is a run's main process, the keeper: it
 * lets the adversary loose, prints "up" when all of it is there, and waits for the file CUE. Where that says "exit" it leaves
 * the adversary behind and exits 0, where it says "abort" it crashes; SIGTERM and the like do not impress it.
 *
 * A test gives every trial a copy of this program of its own: by /proc/PID/exe it finds whoever is left, whatever they did to
 * their environment, session, parents, names and descriptors. Nobody outlives LIFETIME seconds, should the test fail.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LIFETIME = 90, BOMB = 150 };

extern char **environ;
static int up_pipe = -1;
static char **arguments;
static pid_t monitor;
static time_t end;

/* ── what they share ── */

static void end_in_time(void)
{
    time_t left = end - time(NULL);
    if (left <= 0)
        _exit(0);
    alarm(left);
}

static pid_t branch(void)
{
    pid_t pid = fork();
    if (pid == 0)
        end_in_time();
    return pid;
}

static void up(void)
{
    if (write(up_pipe, "!", 1) != 1)
        _exit(1);
}

static void nap(long microseconds)
{
    struct timespec time = { microseconds / 1000000, microseconds % 1000000 * 1000 };
    nanosleep(&time, NULL);
}

static void ignore_all(void)
{
    for (int number = 1; number < NSIG; number++)
        if (number != SIGALRM && number != SIGCHLD)
            signal(number, SIG_IGN);
}

static void wait_for_ever(void)
{
    for (;;)
        pause();
}

static void be_deaf(void)
{
    ignore_all();
    up();
    wait_for_ever();
}

static void reap(void)
{
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
}

/* ── the adversaries: each says up() as often as the table below says ── */

/* Ignores whatever can be ignored. */
static void deaf(void) { be_deaf(); }

/* Double fork and a session of its own. */
static void daemonized(void)
{
    setsid();
    if (branch() == 0)
        be_deaf();
    _exit(0);
}

/* The same, and shows nothing of where it comes from: no environment, name, arguments, folder or descriptor. */
static void wiped(void)
{
    setsid();
    if (branch())
        _exit(0);
    ignore_all();
    for (char **one = environ; *one; one++)
        memset(*one, 0, strlen(*one));
    for (char **one = arguments; *one; one++)
        memset(*one, 0, strlen(*one));
    if (chdir("/"))
        _exit(1);
    prctl(PR_SET_NAME, "kworker/0:1");
    up();
    syscall(SYS_close_range, 0, ~0U, 0);
    wait_for_ever();
}

/* Never the same process for longer than a moment: each forks its successor, in a new session, and ends. */
static void hopping(void)
{
    up();
    while (time(NULL) < end) {
        if (fork() > 0)
            _exit(0);
        setsid();
    }
    _exit(0);
}

/* Four such chains. */
static void hopping_together(void)
{
    for (int chain = 0; chain < 3; chain++)
        if (branch() == 0)
            break;
    hopping();
}

/* A chain that executes itself anew on every hop. */
static void hop_on(void)
{
    char until[32];
    snprintf(until, sizeof until, "%lld", (long long)end);
    char *again[] = { "/proc/self/exe", "-hop", until, NULL };
    if (fork() > 0)
        _exit(0);
    end_in_time();
    setsid();
    execv(again[0], again);
    _exit(1);
}

static void hopping_by_exec(void)
{
    up();
    hop_on();
}

/* The places of a bomb, shared by all of it: each has the pid of who has it. A place whose process is gone is free; so is one
 * that somebody took for its child, below zero, and did not live to fork. */
static _Atomic pid_t *places;

static int is_free(pid_t holder)
{
    return holder == 0 || (kill(abs(holder), 0) < 0 && errno == ESRCH);
}

/* A fork bomb in which each has a session of its own; it fills up again where somebody is killed, and grows no further,
 * whatever else the machine does. */
static void bomb(void)
{
    places = mmap(NULL, BOMB * sizeof *places, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (places == MAP_FAILED)
        _exit(1);
    ignore_all();
    places[0] = getpid();
    up();
    for (unsigned at = 0; time(NULL) < end; at++) {
        reap();
        pid_t holder = places[at % BOMB];
        if (!is_free(holder)) {
            if (at % 3 == 0)
                nap(60000);
        } else if (atomic_compare_exchange_strong(&places[at % BOMB], &holder, -getpid()) && fork() == 0) {
            setsid();
            places[at % BOMB] = getpid();
        }
    }
    _exit(0);
}

/* Does not run, and so does not hear; nor does its child. */
static void stopped(void)
{
    up();
    branch();
    raise(SIGSTOP);
    wait_for_ever();
}

/* One that another holds by ptrace: stopped as a debugger stops, and told of before it may die. */
static void traced(void)
{
    pid_t held = branch();
    if (held == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        wait_for_ever();
    }
    int status;
    waitpid(held, &status, WUNTRACED);
    ptrace(PTRACE_SETOPTIONS, held, NULL, (void *)(intptr_t)PTRACE_O_TRACEEXIT);
    be_deaf();
}

/* Two that watch each other: whoever remains starts the other one again. */
static void guards(void)
{
    ignore_all();
    up();
    for (;;) {
        pid_t mine = getpid();
        pid_t other = branch();
        if (other == 0) {
            setsid();
            while (getppid() == mine)
                nap(200);
            continue; /* the other was killed: be the first one now */
        }
        if (other > 0)
            waitpid(other, NULL, 0);
    }
}

/* clone3 with CLONE_PARENT: a brother of the keeper, not its child. Called by the keeper itself. */
static void brother(void)
{
    uint64_t how[8] = { CLONE_PARENT }; /* struct clone_args: its flags, and nothing else */
    if (syscall(SYS_clone3, how, sizeof how) == 0) {
        end_in_time();
        setsid();
        be_deaf();
    }
}

/* A child whose end tells nobody (no exit signal), one that holds its parent by vfork. */
static void cloned(void)
{
    if (syscall(SYS_clone, 0, 0, 0, 0, 0) == 0) {
        end_in_time();
        be_deaf();
    }
    ignore_all();
    up();
    if (vfork() == 0)
        for (;;)
            syscall(SYS_pause);
    wait_for_ever();
}

/* A subreaper of its own, whose orphans fall to it and are replaced. */
static void reaping(void)
{
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    ignore_all();
    up();
    for (;;) {
        if (branch() == 0) {
            setsid();
            if (branch() == 0) {
                ignore_all();
                wait_for_ever();
            }
            _exit(0);
        }
        while (wait(NULL) < 0)
            ;
        wait(NULL);
    }
}

static void *in_a_thread(void *unused)
{
    (void)unused;
    if (branch() == 0)
        be_deaf();
    up();
    wait_for_ever();
    return NULL;
}

/* Its first thread has ended (to ps it is a zombie), another lives, and has a child. */
static void headless(void)
{
    pthread_t thread;
    ignore_all();
    pthread_create(&thread, NULL, in_a_thread, NULL);
    pthread_exit(NULL);
}

static void *forks_and_ends(void *unused)
{
    (void)unused;
    if (branch() == 0)
        _exit(0);
    return NULL;
}

/* Threads that come, fork and go, so that who has which children changes all the time. */
static void restless(void)
{
    ignore_all();
    if (branch() == 0)
        be_deaf();
    up();
    for (;;) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, forks_and_ends, NULL) == 0)
            pthread_join(thread, NULL);
        reap();
    }
}

/* Zombies that nobody collects, and orphans that end at once. */
static void undead(void)
{
    for (int count = 0; count < 40; count++)
        if (branch() == 0) {
            if (count % 2 && branch())
                _exit(0);
            _exit(0);
        }
    be_deaf();
}

/* Out of its cgroup, into the one at the root of the hierarchy, where that is allowed. */
static void elsewhere(void)
{
    const char *places[] = { "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/unified/cgroup.procs" };
    for (unsigned place = 0; place < 2; place++) {
        int fd = open(places[place], O_WRONLY | O_CLOEXEC);
        if (fd >= 0) {
            if (write(fd, "0", 1) != 1)
                errno = 0; /* not allowed: then it stays where it is */
            close(fd);
        }
    }
    setsid();
    be_deaf();
}

/* In namespaces of its own, with a process 1 of its own, to which orphans fall; where that is allowed. */
static void walled(void)
{
    if (unshare(CLONE_NEWPID) && unshare(CLONE_NEWUSER | CLONE_NEWPID))
        errno = 0; /* not allowed: then it is as all others are */
    if (branch() == 0) {
        if (branch() == 0) {
            setsid();
            if (branch())
                _exit(0);
            be_deaf();
        }
        be_deaf();
    }
    be_deaf();
}

/* Another user's from now on, where this program is that user's and bears the set-user-id bit: who started it may not kill it. */
static void another_users(void)
{
    uid_t owner = geteuid();
    if (setresuid(owner, owner, owner))
        _exit(1);
    be_deaf();
}

/* Kills the run's monitor, and the monitor's group, while it hops and multiplies. */
static void killer(void)
{
    if (branch() == 0)
        hopping();
    if (branch() == 0)
        guards();
    up();
    nap(300000);
    kill(-monitor, SIGKILL);
    kill(monitor, SIGKILL);
    wait_for_ever();
}

/* Stops the run's monitor, so that it hears of nothing. */
static void stopper(void)
{
    if (branch() == 0)
        hopping();
    up();
    nap(300000);
    kill(monitor, SIGSTOP);
    wait_for_ever();
}

static const struct {
    const char *name;
    void (*work)(void);
    int ups;
    int by_the_keeper;
} adversaries[] = {
    { "deaf", deaf, 1, 0 },
    { "daemonized", daemonized, 1, 0 },
    { "wiped", wiped, 1, 0 },
    { "hopping", hopping, 1, 0 },
    { "hopping_together", hopping_together, 4, 0 },
    { "hopping_by_exec", hopping_by_exec, 1, 0 },
    { "bomb", bomb, 1, 0 },
    { "stopped", stopped, 1, 0 },
    { "traced", traced, 1, 0 },
    { "guards", guards, 1, 0 },
    { "brother", brother, 1, 1 },
    { "cloned", cloned, 2, 0 },
    { "reaping", reaping, 1, 0 },
    { "headless", headless, 2, 0 },
    { "restless", restless, 2, 0 },
    { "undead", undead, 1, 0 },
    { "elsewhere", elsewhere, 1, 0 },
    { "walled", walled, 3, 0 },
    { "another_users", another_users, 1, 0 },
    { "killer", killer, 3, 0 },
    { "stopper", stopper, 2, 0 },
};

static void wait_for_cue(const char *path)
{
    for (;;) {
        char word[16] = "";
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {
            if (read(fd, word, sizeof word - 1) < 0)
                _exit(1);
            close(fd);
        }
        if (strcmp(word, "exit") == 0)
            _exit(0);
        if (strcmp(word, "abort") == 0) {
            signal(SIGABRT, SIG_DFL);
            abort();
        }
        nap(2000);
    }
}

int main(int count, char **words)
{
    arguments = words;
    monitor = getppid();
    end = time(NULL) + LIFETIME;
    if (count == 3 && strcmp(words[1], "-hop") == 0) {
        end = atoll(words[2]);
        hop_on();
    }
    for (unsigned one = 0; count == 3 && one < sizeof adversaries / sizeof *adversaries; one++) {
        if (strcmp(words[1], adversaries[one].name))
            continue;
        int ends[2];
        if (pipe(ends))
            return 1;
        up_pipe = ends[1];
        end_in_time();
        ignore_all();
        if (adversaries[one].by_the_keeper)
            adversaries[one].work();
        else if (branch() == 0) {
            for (int number = 1; number < NSIG; number++)
                signal(number, SIG_DFL);
            adversaries[one].work();
        }
        for (int up_yet = 0; up_yet < adversaries[one].ups; up_yet++) {
            char byte;
            if (read(ends[0], &byte, 1) != 1)
                return 1;
        }
        if (write(1, "up\n", 3) != 3)
            return 1;
        wait_for_cue(words[2]);
    }
    fprintf(stderr, "usage: zoo ADVERSARY CUE\n");
    for (unsigned one = 0; one < sizeof adversaries / sizeof *adversaries; one++)
        printf("%s\n", adversaries[one].name);
    return 2;
}
