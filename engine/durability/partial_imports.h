#ifndef MNEME_ENGINE_DURABILITY_PARTIAL_IMPORTS_H_
#define MNEME_ENGINE_DURABILITY_PARTIAL_IMPORTS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "engine/clock.h"
#include "engine/durability/archive_file.h"

namespace mneme {

// What has come of the imports that have a name, so that they go on where a stream broke off: kept
// for a while after the last stream has left, within a number and a sum of bytes. Engine thread
// only, but for what it lends.
class PartialImports {
 public:
  static constexpr absl::Duration kKeepTime = absl::Minutes(15);
  static constexpr int kMaxLeft = 4;  // without a stream; beyond, the longest left go

  // The tenant, and the name that its client gave.
  using Name = std::pair<std::string, std::string>;
  // Does something on the engine thread; any thread calls it.
  using Post = std::function<void(std::function<void()>)>;

  // Those without a stream hold at most `max_left_bytes`, the last to be left excepted. `clock`
  // must outlive it, and it whatever `post` is given.
  PartialImports(uint64_t max_left_bytes, const Clock& clock, Post post)
      : max_left_bytes_(max_left_bytes), clock_(clock), post_(std::move(post)) {}

  // The session that an import of this name is to be; null: there is no such import.
  const std::string* SessionOf(const Name& name) const;
  // Begins one; there is none of this name.
  void Add(const Name& name, std::string session_id, std::shared_ptr<ArchiveFile> file);
  // The file of one that is there, for a stream, which has left when it lets go of it. One that has
  // failed is then forgotten.
  std::shared_ptr<ArchiveFile> Lend(const Name& name);
  // Forgets the import that `file` is of, if it is of one.
  void Drop(const ArchiveFile& file);

  // Drops those whose time is over.
  void DropOld();
  // When the next one's time is over.
  absl::Time NextExpiry() const;

 private:
  struct Import {
    std::string session_id;
    std::shared_ptr<ArchiveFile> file;
    int streams = 0;
    absl::Time left;  // by the last of them
  };

  void TakeBack(const Name& name, const ArchiveFile* file);
  void DropBeyondLimits();

  const uint64_t max_left_bytes_;
  const Clock& clock_;
  const Post post_;
  std::map<Name, Import> imports_;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_DURABILITY_PARTIAL_IMPORTS_H_
