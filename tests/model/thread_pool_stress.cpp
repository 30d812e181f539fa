// Many short runs by more threads than there are processors: every item of every phase is done once, by some thread,
// after the whole phase before. Exits with 1 and says what was wrong, or prints how many items were done.
#include "thread_pool.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>

int main(int, char** arguments) {
    const int num_threads = std::atoi(arguments[1]), num_runs = std::atoi(arguments[2]), num_spins = std::atoi(arguments[3]);
    constexpr int num_phases = 7, most = 400;
    tokenpost::ThreadPool pool(num_threads, num_spins);
    std::mt19937 numbers(7);
    std::vector<int> before(most), after(most);
    std::atomic<bool> is_wrong{false};
    long num_items = 0;
    for (int run = 0; run < num_runs; ++run) {
        int counts[num_phases];
        for (int& count : counts) count = int(numbers() % 5 == 0 ? numbers() % 3 : numbers() % most);
        std::fill(before.begin(), before.end(), 0);
        pool.run([&](int thread) {
            for (int phase = 0; phase < num_phases; ++phase) {
                // Plain memory on purpose: what one phase wrote, any thread reads in the next. Even phases write to `after`.
                auto& from = phase % 2 ? after : before;
                auto& to = phase % 2 ? before : after;
                pool.parallel_for(counts[phase], thread, [&](int begin, int end) {
                    const int found = phase > 0 && counts[phase - 1] > 0 ? from[begin % counts[phase - 1]] : -1;
                    if (found != -1 && found != run * num_phases + phase - 1) is_wrong = true;
                    // Now and then a thread is suspended while it holds a work chunk.
                    if ((begin + phase + run) % 29 == thread) std::this_thread::sleep_for(std::chrono::microseconds(30));
                    for (int i = begin; i < end; ++i) {
                        if (to[i] == run * num_phases + phase && phase > 0) is_wrong = true;
                        to[i] = run * num_phases + phase;
                    }
                });
            }
        });
        for (int i = 0; i < counts[num_phases - 1]; ++i) {
            is_wrong = is_wrong || after[i] != run * num_phases + num_phases - 1;
            ++num_items;
        }
        if (is_wrong) return std::printf("run %d went wrong\n", run), 1;
    }
    std::printf("%ld\n", num_items);
    return 0;
}
