#include "engine/durability/checkpointer.h"

#include <algorithm>
#include <vector>

#include "engine/durability/stored_session.h"
#include "engine/error.h"

namespace mneme {
namespace {

// What of an image is written.
int64_t WrittenBytes(const StateShape& shape, const CachePools& pools, bool with_kv) {
  int64_t bytes = 0;
  for (const ImagePart& part : PartsOf(shape, pools)) {
    if (with_kv || part.part != StatePart::kKv) bytes += part.bytes;
  }
  return bytes;
}

absl::Status Unavailable(const std::string& message) {
  return MakeError(absl::StatusCode::kUnavailable, message,
                   {.reason = ErrorReason::kStorageFailed, .retryable = true});
}

absl::Status Gone() {
  return MakeError(absl::StatusCode::kAborted, "the session was deleted or rolled back",
                   {.reason = ErrorReason::kSessionDeleted});
}

}  // namespace

Checkpointer::Checkpointer(SessionLog& log, SessionTiers& tiers, DiskUsage& usage,
                           const StateFormat& format, const Options& options, const Clock& clock,
                           StatsSink& stats)
    : log_(log),
      tiers_(tiers),
      usage_(usage),
      format_(format),
      options_(options),
      clock_(clock),
      stats_(stats) {}

Checkpointer::~Checkpointer() { GiveUp(Unavailable("the server is shutting down")); }

// --- Which are due. ---

void Checkpointer::SetDue(Session& session, Mark* mark, absl::Time due) {
  due_.erase({mark->due, &session});
  mark->due = due;
  if (due < absl::InfiniteFuture()) due_.insert({due, &session});
}

void Checkpointer::Note(Session& session) {
  if (!log_.Keeps(session)) return;
  const auto [entry, is_new] = marks_.try_emplace(&session, Mark{.time = clock_.Now()});
  Mark& mark = entry->second;
  if (session.computed() <= mark.position) return;
  const bool is_due =
      CheckpointDue(options_.policy, session.computed(), mark.position, clock_.Now() - mark.time);
  SetDue(session, &mark, is_due ? absl::InfinitePast() : mark.time + options_.policy.every);
}

void Checkpointer::OnRestored(Session& session, int64_t position) {
  marks_.try_emplace(&session,
                     Mark{.position = position, .written = position, .time = clock_.Now()});
}

void Checkpointer::OnErased(const Session& session) {
  const auto mark = marks_.find(&session);
  if (mark != marks_.end()) mark->second.written = 0;
  if (taken_ && taken_->session == &session) taken_->erased = true;
}

void Checkpointer::Forget(const Session& session) {
  const auto mark = marks_.find(&session);
  if (mark != marks_.end()) {
    std::erase_if(due_, [&session](const auto& entry) { return entry.second == &session; });
    marks_.erase(mark);
  }
  if (taken_ && taken_->session == &session) taken_->session = nullptr;
  std::vector<Done> dones;
  for (Asked& asked : asked_) {
    if (asked.session == &session) dones.push_back(std::move(asked.done));
  }
  std::erase_if(asked_, [&session](const Asked& asked) { return asked.session == &session; });
  for (const Done& done : dones) done(Gone());
}

absl::Time Checkpointer::NextDue() const {
  if (taken_) return absl::InfiniteFuture();
  // Those that are due now, but cannot be copied yet, wait for something else to happen.
  const auto later = due_.upper_bound({clock_.Now(), nullptr});
  return later == due_.end() ? absl::InfiniteFuture() : later->first;
}

// --- The one that is taken. ---

void Checkpointer::Ask(Session& session, std::string name, Done done) {
  asked_.push_back({&session, std::move(name), std::move(done)});
}

bool Checkpointer::IsAskedFor(const Session& session) const {
  if (taken_ && taken_->session == &session && taken_->done) return true;
  return std::any_of(asked_.begin(), asked_.end(),
                     [&session](const Asked& asked) { return asked.session == &session; });
}

bool Checkpointer::HasAllOf(const Session& session) const {
  const auto mark = marks_.find(&session);
  return mark != marks_.end() && mark->second.written == session.computed();
}

void Checkpointer::GiveUp(const absl::Status& status) {
  for (const Asked& asked : std::exchange(asked_, {})) asked.done(status);
  if (taken_ && taken_->done) std::exchange(taken_->done, nullptr)(status);
}

bool Checkpointer::wants_one() const {
  if (taken_) return false;
  return !asked_.empty() || (!due_.empty() && due_.begin()->first <= clock_.Now());
}

Session* Checkpointer::Begin(const std::function<bool(const Session&)>& may_take) {
  const auto asked = std::find_if(asked_.begin(), asked_.end(),
                                  [&](const Asked& entry) { return may_take(*entry.session); });
  if (asked != asked_.end()) {
    Asked entry = std::move(*asked);
    asked_.erase(asked);
    const bool begun = BeginWith(*entry.session, std::move(entry.name), std::move(entry.done));
    return begun ? entry.session : nullptr;
  }
  const absl::Time now = clock_.Now();
  const auto due = std::find_if(due_.begin(), due_.end(), [&](const auto& entry) {
    return entry.first > now || may_take(*entry.second);
  });
  if (due == due_.end() || due->first > now) return nullptr;
  Session* const session = due->second;
  return BeginWith(*session, "", nullptr) ? session : nullptr;
}

bool Checkpointer::BeginWith(Session& session, std::string name, Done done) {
  const std::shared_ptr<const StateImage> parked = tiers_.ParkedImage(session);
  const StateShape shape = parked ? parked->shape : session.state().shape();
  usage_.Track(session);
  Mark& mark = marks_[&session];
  mark.position = session.computed();
  mark.time = clock_.Now();
  SetDue(session, &mark, absl::InfiniteFuture());
  taken_ = {.session = &session,
            .checkpoint = {.id = log_.IdOf(session),
                           .info = InfoOf(session, std::move(name)),
                           .names = session.CheckpointNames()},
            .summary = {.position = static_cast<uint64_t>(session.computed()),
                        .version = session.VersionAt(session.computed()),
                        .bytes = WrittenBytes(shape, format_.pools, options_.with_kv),
                        .session_position = static_cast<uint64_t>(session.position())},
            .begin = clock_.Now(),
            .done = std::move(done)};
  if (parked) {
    Write(parked);
    return true;
  }
  const bool begun = tiers_.Copy(session, [this](std::optional<StateImage> image) {
    if (!image) return End(absl::NotFoundError("the session was deleted"));
    Write(std::make_shared<const StateImage>(*std::move(image)));
  });
  if (!begun) {
    End(absl::ResourceExhaustedError("the host has no memory to copy a session's state to"));
  }
  return begun;
}

CheckpointInfo Checkpointer::InfoOf(const Session& session, std::string name) const {
  std::vector<UpdateApplied> updates;
  for (const UpdatePoint& point : session.state().update_log().points()) {
    updates.push_back({.chunk = point.chunk, .position = point.position});
  }
  std::vector<ControlsSet> controls;
  for (const auto& [position, set] : session.controls().entries()) {
    controls.push_back({.position = position, .controls = ToStored(set)});
  }
  const int64_t position = session.computed();
  return {.model_fingerprint = format_.model_fingerprint,
          .controls_fingerprint = ControlsFingerprint(controls, position),
          .log_hash =
              LogHash(absl::MakeSpan(session.log()).first(static_cast<size_t>(position)), updates),
          .position = position,
          .updates = static_cast<int64_t>(updates.size()),
          .epoch = session.epoch(),
          .has_kv = options_.with_kv,
          .name = std::move(name),
          .create_time = clock_.Now()};
}

void Checkpointer::Write(std::shared_ptr<const StateImage> image) {
  log_.RunOnDisk([this, image = std::move(image),
                  checkpoint = taken_->checkpoint](SessionStore& store) mutable {
    const StoreId id = checkpoint.id;
    const absl::Status status =
        WriteCheckpoint(store, checkpoint, *image, format_, options_.policy);
    image.reset();  // before anybody is told: the memory may be wanted
    return [this, status, id, bytes = CheckpointFiles(store).Bytes(id)] {
      usage_.Set(id, bytes);
      End(status);
    };
  });
}

void Checkpointer::End(const absl::Status& status) {
  const Taken taken = *std::exchange(taken_, std::nullopt);
  if (status.ok()) {
    const auto mark = marks_.find(taken.session);
    if (mark != marks_.end() && !taken.erased) {
      mark->second.written = taken.checkpoint.info.position;
    }
    stats_.OnCheckpoint(taken.summary.bytes, clock_.Now() - taken.begin);
  } else if (!absl::IsNotFound(status)) {
    stats_.OnCheckpointFailed(status);
  }
  if (!taken.done) return;
  // A name needs the session as it was.
  const bool is_gone = taken.session == nullptr && !taken.checkpoint.info.name.empty();
  if (absl::IsNotFound(status) || (status.ok() && is_gone)) return taken.done(Gone());
  if (status.ok()) return taken.done(taken.summary);
  taken.done(Unavailable("the checkpoint could not be written: " + std::string(status.message())));
}

}  // namespace mneme
