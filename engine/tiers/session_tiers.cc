#include "engine/tiers/session_tiers.h"

#include "base/check.h"
#include "base/status_macros.h"

namespace mneme {

absl::StatusOr<std::unique_ptr<SessionTiers>> SessionTiers::Create(
    const CachePools& pools, Backend& backend, const TierOptions& options, const Clock& clock,
    StatsSink& stats, std::function<void()> wake) {
  MNEME_ASSIGN_OR_RETURN(std::shared_ptr<HostPool> host,
                         HostPool::Create(backend, options.host_cache_bytes));
  std::unique_ptr<SessionTiers> tiers(
      new SessionTiers(pools, std::move(host), options, clock, stats, std::move(wake)));
  if (tiers->host_->limit_bytes() > 0 || options.use_files) {
    MNEME_ASSIGN_OR_RETURN(tiers->mover_, StateMover::Create(backend));
  }
  return tiers;
}

SessionTiers::SessionTiers(const CachePools& pools, std::shared_ptr<HostPool> host,
                           const TierOptions& options, const Clock& clock, StatsSink& stats,
                           std::function<void()> wake)
    : pools_(pools),
      options_(options),
      clock_(clock),
      stats_(stats),
      wake_(std::move(wake)),
      host_(std::move(host)) {}

// --- Coming. ---

SessionTiers::Presence SessionTiers::Bring(Session& session, bool may_reserve) {
  const auto found = away_.find(&session);
  if (found == away_.end()) return Presence::kHere;
  Away& away = found->second;
  if (away.stage != Stage::kParked) return Presence::kComing;
  if (!may_reserve || !session.state().Restore(away.image->shape)) return Presence::kNoMemory;
  away.stage = Stage::kComing;
  BeginMove(away, StateMover::Direction::kToDevice);
  return Presence::kComing;
}

int64_t SessionTiers::NeededBytes(const Session& session) const {
  const auto found = away_.find(&session);
  return found == away_.end() ? 0 : found->second.device_bytes;
}

// --- Leaving. ---

std::vector<Session*> SessionTiers::MakeRoom(int64_t wanted_bytes,
                                             const std::vector<Session*>& sessions, bool for_good) {
  wanted_bytes -= leaving_bytes_;
  if (mover_ == nullptr || wanted_bytes <= 0) return {};
  std::vector<ParkCandidate> candidates;
  for (const Session* session : sessions) candidates.push_back(CandidateOf(*session));
  std::vector<Session*> leaving;
  for (const size_t i : ChooseToPark(candidates, wanted_bytes, HostState())) {
    leaving.push_back(sessions[i]);
    Park(*sessions[i], for_good);
  }
  return leaving;
}

ParkCandidate SessionTiers::CandidateOf(const Session& session) const {
  const ComputedState& state = session.state();
  return {.tenant = session.key().tenant,
          .last_used = session.last_used_time(),
          .leased = !IsHere(session),
          .device_bytes = state.cache().held_bytes(),
          .host_bytes = host_->SlabBytesFor(ImageBytes(state.shape(), pools_))};
}

Session* SessionTiers::ChooseToDrop(const std::vector<Session*>& idle,
                                    const std::function<bool(const Session&)>& may_leave) const {
  std::vector<Session*> sessions;
  std::vector<ParkCandidate> candidates;
  const auto add = [&](Session* session, ParkCandidate candidate) {
    candidate.leased = candidate.leased || !may_leave(*session);
    candidates.push_back(std::move(candidate));
    sessions.push_back(session);
  };
  for (Session* session : idle) add(session, CandidateOf(*session));
  for (const auto& [key, away] : away_) {
    if (away.stage != Stage::kParked || !away.image->bytes.is_of_pool()) continue;
    add(away.session, {.tenant = key->key().tenant,
                       .last_used = key->last_used_time(),
                       .host_bytes = away.image->bytes.held_bytes()});
  }
  const std::optional<size_t> chosen = mneme::ChooseToDrop(candidates, HostState());
  return chosen ? sessions[*chosen] : nullptr;
}

HostTier SessionTiers::HostState() const {
  HostTier host = {.limit_bytes = host_->limit_bytes(),
                   .free_bytes = host_->limit_bytes() - host_->held_bytes(),
                   .tenant_limit_bytes = options_.tenant_host_cache_bytes};
  for (const auto& [session, away] : away_) {
    host.bytes_of_tenant[session->key().tenant] += away.image->bytes.held_bytes();
  }
  return host;
}

void SessionTiers::Park(Session& session, bool for_good) {
  StateShape shape = session.state().shape();
  std::optional<HostMemory> memory = host_->Take(ImageBytes(shape, pools_));
  MNEME_CHECK(memory.has_value());
  Away& away = Add(session, Stage::kLeaving, {std::move(shape), *std::move(memory)},
                   session.cache().held_bytes());
  away.for_good = for_good;
  leaving_bytes_ += away.device_bytes;
  BeginMove(away, StateMover::Direction::kToHost);
}

SessionTiers::Away& SessionTiers::Add(Session& session, Stage stage, StateImage image,
                                      int64_t device_bytes) {
  const auto [entry, is_new] =
      away_.emplace(&session, Away{.stage = stage,
                                   .image = std::make_shared<StateImage>(std::move(image)),
                                   .session = &session,
                                   .device_bytes = device_bytes,
                                   .for_good = false,
                                   .move_begin = {},
                                   .take = nullptr,
                                   .retired = nullptr});
  MNEME_CHECK(is_new);
  return entry->second;
}

void SessionTiers::Erase(std::unordered_map<const Session*, Away>::iterator entry) {
  const Away& away = entry->second;
  if (away.stage != Stage::kCopying && !away.image->bytes.is_of_pool()) --adopted_;
  away_.erase(entry);
}

// --- To and from files. ---

std::shared_ptr<const StateImage> SessionTiers::ParkedImage(const Session& session) const {
  const auto found = away_.find(&session);
  if (found == away_.end() || found->second.stage != Stage::kParked) return nullptr;
  return found->second.image;
}

bool SessionTiers::Copy(Session& session, TakeCopy take) {
  StateShape shape = session.state().shape();
  std::optional<HostMemory> memory = HostMemory::Allocate(ImageBytes(shape, pools_));
  if (!memory) return false;
  Away& away = Add(session, Stage::kCopying, {std::move(shape), *std::move(memory)}, 0);
  away.take = std::move(take);
  BeginMove(away, StateMover::Direction::kToHost);
  return true;
}

void SessionTiers::Adopt(Session& session, StateImage image) {
  const int64_t bytes = ImageBytes(image.shape, pools_);
  Add(session, Stage::kParked, std::move(image), bytes);
  ++adopted_;
}

void SessionTiers::DropAdopted(const Session& session) {
  const auto found = away_.find(&session);
  if (found == away_.end() || found->second.image->bytes.is_of_pool()) return;
  if (found->second.stage == Stage::kParked) Erase(found);
}

// --- Moves. ---

void SessionTiers::BeginMove(Away& away, StateMover::Direction direction) {
  const Session* const session = away.session;
  away.move_begin = clock_.Now();
  ++moves_;
  mover_->Begin(
      direction,
      CopiesBetween(DeviceRanges(away.session->state(), pools_), away.image->bytes.ranges()),
      [this, session](absl::Status status) {
        {
          std::lock_guard lock(mutex_);
          ended_.emplace_back(session, std::move(status));
        }
        wake_();
      });
}

absl::StatusOr<std::vector<Session*>> SessionTiers::FinishMoves(
    const std::function<bool(const Session&)>& wanted) {
  std::vector<Ended> ended;
  {
    std::lock_guard lock(mutex_);
    ended.swap(ended_);
  }
  std::vector<Session*> here;
  for (const auto& [session, status] : ended) {
    --moves_;
    MNEME_RETURN_IF_ERROR(status);
    const auto found = away_.find(session);
    Away& away = found->second;
    if (away.stage == Stage::kLeaving) leaving_bytes_ -= away.device_bytes;
    if (away.retired == nullptr && !FinishMove(away, wanted(*session))) continue;
    if (away.retired == nullptr) here.push_back(away.session);
    if (away.retired != nullptr && away.take) away.take(std::nullopt);
    Erase(found);
  }
  return here;
}

bool SessionTiers::FinishMove(Away& away, bool wanted) {
  const absl::Duration time = clock_.Now() - away.move_begin;
  if (away.stage == Stage::kComing) {
    stats_.OnUnparked(away.image->bytes.bytes(), time);
    return true;
  }
  if (away.stage == Stage::kCopying) {
    away.take(std::move(*away.image));
    return true;
  }
  if (wanted && !away.for_good) return true;
  away.stage = Stage::kParked;
  away.session->cache().GiveAll();
  stats_.OnParked(away.image->bytes.bytes(), time);
  return false;
}

bool SessionTiers::DropImage(const Session& session) {
  const auto found = away_.find(&session);
  if (found == away_.end()) return true;
  if (found->second.stage != Stage::kParked) return false;
  Erase(found);
  return true;
}

void SessionTiers::Retire(std::unique_ptr<Session> session) {
  const auto found = away_.find(session.get());
  if (found == away_.end()) return;
  if (found->second.stage == Stage::kParked) {
    Erase(found);
  } else {
    found->second.retired = std::move(session);
  }
}

// --- What is told of it. ---

void SessionTiers::Describe(const Session& session, SessionInfo* info) const {
  const auto found = away_.find(&session);
  if (found == away_.end()) return;
  const Away& away = found->second;
  info->host_bytes += away.image->bytes.held_bytes();
  if (away.stage == Stage::kLeaving || away.stage == Stage::kCopying) return;
  info->residence = away.stage == Stage::kParked ? Residence::kHost : Residence::kRestoring;
}

void SessionTiers::AddTo(EngineLoad* load) const {
  load->host_cache_bytes_used = host_->held_bytes();
  load->host_cache_bytes_limit = host_->limit_bytes();
  for (const auto& [session, away] : away_) {
    if (away.stage == Stage::kParked) ++load->parked_sessions;
  }
}

}  // namespace mneme
