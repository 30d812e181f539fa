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

class Team {
   public:
    Team(int size, int num_spins) : size_(size), num_spins_(num_spins), members_(size) {
        for (int index = 1; index < size; ++index) threads_.emplace_back([this, index] { serve(index); });
    }

    ~Team() {
        is_ending_ = true;
        round_.fetch_add(1, std::memory_order_release);
        round_.notify_all();
        for (auto& thread : threads_) thread.join();
    }

    int size() const { return size_; }

    // Runs work(index) on every thread, the caller being thread 0; returns when all are done.
    void run(const std::function<void(int)>& work) {
        work_ = &work;
        round_.fetch_add(1, std::memory_order_release);
        round_.notify_all();
        work(0);
        meet();
    }

    // Everybody of a run calls it; nobody goes on before all did.
    void meet() {
        if (size_ == 1) return;
        const uint32_t gate = gate_.load(std::memory_order_relaxed);
        if (num_arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
            num_arrived_.store(0, std::memory_order_relaxed);
            gate_.fetch_add(1, std::memory_order_release);
            gate_.notify_all();
        } else {
            wait_while(gate_, gate, num_spins_);
        }
    }

    // Hands out 0 .. count - 1 as work(from, to), a few at a time: to each thread of its own part, then of what others
    // have left, so that one whose processor is taken away is not waited for. Everybody of a run calls it; nobody
    // goes on before all is done.
    template <class Work>
    void share(int count, int me, const Work& work) {
        const int few = 1 + count / (PORTIONS * size_);
        const unsigned phase = members_[me].phase++;
        // Everybody has left the phase before this one, and nobody enters the one after the next yet.
        members_[me].taken[(phase + 2) % 3].store(0, std::memory_order_relaxed);
        for (int turn = 0; turn < size_; ++turn) {
            const int whose = (me + turn) % size_;
            const int begin = int(int64_t(count) * whose / size_), end = int(int64_t(count) * (whose + 1) / size_);
            auto& taken = members_[whose].taken[phase % 3];
            int from;
            while ((from = begin + taken.fetch_add(few, std::memory_order_relaxed)) < end)
                work(from, std::min(from + few, end));
        }
        meet();
    }

   private:
    // Into how many portions a thread's part is cut, about.
    static constexpr int PORTIONS = 64;

    // A thread's phases of sharing, and how much of its part is taken in this one, the last, and the next.
    struct alignas(64) Member {
        unsigned phase = 0;
        alignas(64) std::atomic<int> taken[3] = {};
    };

    void serve(int index) {
        uint32_t seen = 0;
        while (true) {
            wait_while(round_, seen, num_spins_);
            seen = round_.load(std::memory_order_acquire);
            if (is_ending_) return;
            (*work_)(index);
            meet();
        }
    }

    const int size_;
    const int num_spins_;
    std::vector<std::thread> threads_;
    std::vector<Member> members_;
    const std::function<void(int)>* work_ = nullptr;
    bool is_ending_ = false;
    alignas(64) std::atomic<uint32_t> round_{0};
    alignas(64) std::atomic<int> num_arrived_{0};
    alignas(64) std::atomic<uint32_t> gate_{0};
};

}  // namespace tokenpost
