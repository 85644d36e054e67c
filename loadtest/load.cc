#include "loadtest/load.h"

#include <memory>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "loadtest/event_loop.h"
#include "loadtest/load_session.h"

namespace mneme {
namespace {

constexpr int64_t kProgressIntervalUs = 1'000'000;

// Sets this run's sessions apart from those that an earlier one has kept.
std::string SessionPrefix() {
  std::random_device device;
  return absl::StrFormat("load-%08x%08x-", device(), device());
}

class Load {
 public:
  Load(const LoadOptions& options, const Connection& connection, uint32_t vocab_size,
       const ProgressSink& progress, LoadReport& report)
      : schedule_(MakeSchedule(options)),
        progress_(progress),
        context_{options, connection, vocab_size, loop_, report} {}

  void Run(const std::stop_token& stop) {
    const std::stop_callback interrupt(stop, [this] { loop_.Post([this] { Interrupt(); }); });
    begin_us_ = loop_.now_us();
    if (progress_) loop_.At(begin_us_ + kProgressIntervalUs, [this] { ShowProgress(); });
    AwaitArrival();
    loop_.Run();
    context_.report.elapsed_s = static_cast<double>(loop_.now_us() - begin_us_) * 1e-6;
    context_.report.interrupted = context_.interrupted;
  }

  std::vector<CheckedSession> Checked() const {
    std::vector<CheckedSession> checked;
    for (const auto& session : sessions_) {
      if (!session->arrival().checked) continue;
      checked.push_back({session->arrival(), session->id(), session->results()});
    }
    return checked;
  }

 private:
  // The schedule goes on whatever becomes of the sessions: this is what makes the loop open.
  void AwaitArrival() {
    if (next_ == schedule_.size()) return StopIfDone();
    loop_.At(begin_us_ + schedule_[next_].at_us, [this] {
      if (context_.interrupted) return;
      Arrive(schedule_[next_++]);
      AwaitArrival();
    });
  }

  void Arrive(const Arrival& arrival) {
    const int64_t scheduled_us = begin_us_ + arrival.at_us;
    LoadReport& report = context_.report;
    ++report.arrivals;
    report.start_lag.Add(loop_.now_us() - scheduled_us);
    if (in_flight_ >= context_.options.max_in_flight) {
      ++report.dropped;
      return;
    }
    ++in_flight_;
    sessions_.push_back(std::make_unique<LoadSession>(
        context_, arrival, absl::StrCat(prefix_, sessions_.size()), [this] {
          --in_flight_;
          StopIfDone();
        }));
    sessions_.back()->Start(scheduled_us);
  }

  void StopIfDone() {
    const bool no_more_come = next_ == schedule_.size() || context_.interrupted;
    if (no_more_come && in_flight_ == 0) loop_.Stop();
  }

  void Interrupt() {
    context_.interrupted = true;
    for (const auto& session : sessions_) session->Interrupt();
    StopIfDone();
  }

  void ShowProgress() {
    const LoadReport& report = context_.report;
    const int64_t elapsed_us = loop_.now_us() - begin_us_;
    progress_(absl::StrFormat(
        "%d s  %d arrived  %d under way  %d dropped  %d tokens in  %d out  first token p50 %.0f ms",
        elapsed_us / 1'000'000, report.arrivals, in_flight_, report.dropped, report.tokens_in,
        report.tokens_out, static_cast<double>(report.first_token.PercentileUs(0.5)) * 1e-3));
    loop_.At(loop_.now_us() + kProgressIntervalUs, [this] { ShowProgress(); });
  }

  const std::vector<Arrival> schedule_;
  const ProgressSink& progress_;
  const std::string prefix_ = SessionPrefix();
  EventLoop loop_;

  // Of the loop's thread.
  LoadContext context_;
  std::vector<std::unique_ptr<LoadSession>> sessions_;  // ended ones included
  int64_t begin_us_ = 0;
  size_t next_ = 0;  // arrival
  int64_t in_flight_ = 0;
};

}  // namespace

std::vector<CheckedSession> RunLoad(const LoadOptions& options, const Connection& connection,
                                    uint32_t vocab_size, std::stop_token stop,
                                    const ProgressSink& progress, LoadReport& report) {
  Load load(options, connection, vocab_size, progress, report);
  load.Run(stop);
  return load.Checked();
}

}  // namespace mneme
