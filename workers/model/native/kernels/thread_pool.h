// A thread pool that runs every step together. A thread that waits spins for a moment, then sleeps in the kernel.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace tokenpost {

inline void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Waits until `value` is no longer `old`: num_spins checks, then a wait in the kernel.
inline void wait_while(std::atomic<uint32_t>& value, uint32_t old, int num_spins) {
    for (int i = 0; i < num_spins; ++i) {
        if (value.load(std::memory_order_acquire) != old) return;
        pause();
    }
    while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

// A run is a sequence of phases. A phase is over when all of its work chunks are done, whichever thread did them: a
// thread that the operating system has suspended delays the others only while it holds an unfinished chunk.
class ThreadPool {
   public:
    ThreadPool(int size, int num_spins) : size_(size), num_spins_(num_spins), workers_(size) {
        for (int index = 1; index < size; ++index) threads_.emplace_back([this, index] { worker_loop(index); });
    }

    ~ThreadPool() {
        is_stopping_ = true;
        wake_threads();
        for (auto& thread : threads_) thread.join();
    }

    int size() const { return size_; }

    // Runs work(index) on every thread that wakes in time; the caller is thread 0. Returns when all chunks of all
    // phases are done and no other thread is inside the work.
    void run(const std::function<void(int)>& work) {
        work_ = &work;
        first_phase_ = workers_[0].phase = num_completed_.load(std::memory_order_relaxed);
        is_running_.store(true);
        wake_threads();
        work(0);
        is_running_.store(false);
        while (const uint32_t num = num_active_.load()) wait_while(num_active_, num, num_spins_);
    }

    // One phase: calls work(from, to) for work chunks of 0 .. count - 1. A thread takes the chunks of its own range
    // first and then those that other threads have left. All threads of a run must call it with the same count. It
    // returns when all chunks are done; a thread that comes after that returns at once.
    template <class Work>
    void parallel_for(int count, int thread, const Work& work) {
        if (count == 0) return;
        const uint32_t phase = workers_[thread].phase++;
        if (num_completed_.load(std::memory_order_acquire) != phase) return;
        const int chunk_size = 1 + count / (CHUNKS_PER_THREAD * size_);
        int num_done = 0;
        for (int offset = 0; offset < size_; ++offset) {
            const int owner = (thread + offset) % size_;
            const int begin = int(int64_t(count) * owner / size_), end = int(int64_t(count) * (owner + 1) / size_);
            int from;
            while ((from = begin + take_chunk(workers_[owner].taken, phase, chunk_size, end - begin)) < end) {
                const int to = std::min(from + chunk_size, end);
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
    // Into how many chunks the range of a thread is cut, about.
    static constexpr int CHUNKS_PER_THREAD = 64;

    // taken: upper half: the phase; lower half: how much of the thread's range in that phase has been taken
    // phase: the next phase of this thread; only the thread itself reads and writes it
    struct alignas(64) Worker {
        std::atomic<uint64_t> taken{0};
        alignas(64) uint32_t phase = 0;
    };

    // Takes a chunk of a range: where it begins, or `whole` when nothing is left or the phase is over.
    static int take_chunk(std::atomic<uint64_t>& taken, uint32_t phase, int chunk_size, int whole) {
        uint64_t word = taken.load(std::memory_order_acquire);
        while (uint32_t(word >> 32) == phase && int(uint32_t(word)) < whole)
            if (taken.compare_exchange_weak(word, word + chunk_size, std::memory_order_acq_rel))
                return int(uint32_t(word));
        return whole;
    }

    // Called by the thread that did the last chunk of a phase: no thread holds a chunk of it any more, and none can
    // begin the next phase before this.
    void complete(uint32_t phase) {
        num_done_.store(0, std::memory_order_relaxed);
        for (auto& worker : workers_) worker.taken.store(uint64_t(phase + 1) << 32, std::memory_order_release);
        num_completed_.store(phase + 1, std::memory_order_release);
        num_completed_.notify_all();
    }

    void wake_threads() {
        generation_.fetch_add(1, std::memory_order_release);
        generation_.notify_all();
    }

    void worker_loop(int index) {
        uint32_t seen = 0;
        while (true) {
            wait_while(generation_, seen, num_spins_);
            seen = generation_.load(std::memory_order_acquire);
            if (is_stopping_) return;
            join_run(index);
        }
    }

    // Takes part in the current run, if there is one. `run` waits at its end for the threads that were counted before.
    void join_run(int index) {
        num_active_.fetch_add(1);
        if (is_running_.load()) {
            workers_[index].phase = first_phase_;
            (*work_)(index);
        }
        num_active_.fetch_sub(1);
        num_active_.notify_all();
    }

    const int size_;
    const int num_spins_;
    std::vector<Worker> workers_;
    std::vector<std::thread> threads_;
    const std::function<void(int)>* work_ = nullptr;
    uint32_t first_phase_ = 0;
    bool is_stopping_ = false;
    alignas(64) std::atomic<uint32_t> generation_{0};
    std::atomic<bool> is_running_{false};
    alignas(64) std::atomic<uint32_t> num_active_{0};
    alignas(64) std::atomic<int> num_done_{0};
    // Phases of all runs. It wraps after four billion, and so do the numbers that are compared with it.
    alignas(64) std::atomic<uint32_t> num_completed_{0};
};

}  // namespace tokenpost
