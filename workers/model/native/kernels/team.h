// Threads that take every step together. They spin for a moment where they wait, then sleep in the kernel.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace tokenpost {

inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Waits until `value` is no longer `old`: num_spins looks, then the kernel.
inline void wait_while(std::atomic<uint32_t>& value, uint32_t old, int num_spins) {
    for (int i = 0; i < num_spins; ++i) {
        if (value.load(std::memory_order_acquire) != old) return;
        relax();
    }
    while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

// A run is a row of phases, and a phase is over when all that it shares out is done, no matter by whom: a thread whose
// processor was taken away is waited for only where it has a portion in hand.
class Team {
   public:
    Team(int size, int num_spins) : size_(size), num_spins_(num_spins), members_(size) {
        for (int index = 1; index < size; ++index) threads_.emplace_back([this, index] { serve(index); });
    }

    ~Team() {
        is_ending_ = true;
        call();
        for (auto& thread : threads_) thread.join();
    }

    int size() const { return size_; }

    // Runs work(index) on every thread that comes in time, the caller being thread 0; returns when all that it shares
    // out is done and nobody is inside.
    void run(const std::function<void(int)>& work) {
        work_ = &work;
        first_phase_ = members_[0].phase = num_completed_.load(std::memory_order_relaxed);
        is_open_.store(true);
        call();
        work(0);
        is_open_.store(false);
        while (const uint32_t num = num_inside_.load()) wait_while(num_inside_, num, num_spins_);
    }

    // Hands out 0 .. count - 1 as work(from, to), a few at a time: to each thread of its own part, then of what others
    // have left. Everybody of a run calls it with the same count. Nobody goes on before all is done, and who comes when
    // it is done goes on at once.
    template <class Work>
    void share(int count, int me, const Work& work) {
        if (count == 0) return;
        const uint32_t phase = members_[me].phase++;
        if (num_completed_.load(std::memory_order_acquire) != phase) return;
        const int few = 1 + count / (PORTIONS * size_);
        int num_done = 0;
        for (int turn = 0; turn < size_; ++turn) {
            const int whose = (me + turn) % size_;
            const int begin = int(int64_t(count) * whose / size_), end = int(int64_t(count) * (whose + 1) / size_);
            int from;
            while ((from = begin + take(members_[whose].part, phase, few, end - begin)) < end) {
                const int to = std::min(from + few, end);
                work(from, to);
                num_done += to - from;
            }
        }
        if (num_done > 0 && num_done_.fetch_add(num_done, std::memory_order_acq_rel) + num_done == count)
            complete(phase);
        else
            wait_while(num_completed_, phase, num_spins_);
    }

   private:
    // Into how many portions a thread's part is cut, about.
    static constexpr int PORTIONS = 64;

    // part:  in the upper half the phase, in the lower one how much of the thread's part in that phase is taken
    // phase: the next one that the thread comes to; its own
    struct alignas(64) Member {
        std::atomic<uint64_t> part{0};
        alignas(64) uint32_t phase = 0;
    };

    // Takes `few` of a part: where they begin, or `whole` when nothing is left or the phase is over.
    static int take(std::atomic<uint64_t>& part, uint32_t phase, int few, int whole) {
        uint64_t word = part.load(std::memory_order_acquire);
        while (uint32_t(word >> 32) == phase && int(uint32_t(word)) < whole)
            if (part.compare_exchange_weak(word, word + few, std::memory_order_acq_rel)) return int(uint32_t(word));
        return whole;
    }

    // By the thread that did the last of a phase: nobody has any of it in hand, and nobody begins the next before.
    void complete(uint32_t phase) {
        num_done_.store(0, std::memory_order_relaxed);
        for (auto& member : members_) member.part.store(uint64_t(phase + 1) << 32, std::memory_order_release);
        num_completed_.store(phase + 1, std::memory_order_release);
        num_completed_.notify_all();
    }

    void call() {
        round_.fetch_add(1, std::memory_order_release);
        round_.notify_all();
    }

    void serve(int index) {
        uint32_t seen = 0;
        while (true) {
            wait_while(round_, seen, num_spins_);
            seen = round_.load(std::memory_order_acquire);
            if (is_ending_) return;
            enter(index);
        }
    }

    // Takes part in the run that is open, if one is. Who is counted before it is closed is waited for at its end.
    void enter(int index) {
        num_inside_.fetch_add(1);
        if (is_open_.load()) {
            members_[index].phase = first_phase_;
            (*work_)(index);
        }
        num_inside_.fetch_sub(1);
        num_inside_.notify_all();
    }

    const int size_;
    const int num_spins_;
    std::vector<Member> members_;
    std::vector<std::thread> threads_;
    const std::function<void(int)>* work_ = nullptr;
    uint32_t first_phase_ = 0;
    bool is_ending_ = false;
    alignas(64) std::atomic<uint32_t> round_{0};
    std::atomic<bool> is_open_{false};
    alignas(64) std::atomic<uint32_t> num_inside_{0};
    alignas(64) std::atomic<int> num_done_{0};
    // Phases of all runs; it begins anew after four billion, as the numbers that are compared with it do.
    alignas(64) std::atomic<uint32_t> num_completed_{0};
};

}  // namespace tokenpost
