#include "engine/loading/safetensors_checkpoint.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/dtype.h"
#include "base/mapped_file.h"
#include "base/status_macros.h"
#include "engine/loading/safetensors_header.h"
#include "nlohmann/json.hpp"

namespace mneme {
namespace {

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";
constexpr size_t kMaxIndexBytes = 64 << 20;

std::optional<DType> FloatDType(const std::string& name) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    if (name == NameOf(dtype)) return dtype;
  }
  return std::nullopt;
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

bool HasShape(const SafetensorsTensor& tensor, int64_t rows, int64_t cols) {
  if (cols == 0) return tensor.shape == std::vector<int64_t>{rows};
  return tensor.shape == std::vector<int64_t>{rows, cols} ||
         tensor.shape == std::vector<int64_t>{rows, 1, cols};
}

// A shard lies in the directory or below it.
bool StaysInside(const std::filesystem::path& shard) {
  return !shard.empty() && shard.is_relative() &&
         std::none_of(shard.begin(), shard.end(), [](const auto& part) { return part == ".."; });
}

// The index's `weight_map`: tensor to shard.
absl::StatusOr<std::map<std::string, std::string>> ReadWeightMap(
    const std::filesystem::path& path) {
  MNEME_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  const absl::string_view text = file.text();
  if (text.size() > kMaxIndexBytes) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), " is larger than an index is"));
  }
  const auto index = nlohmann::json::parse(text.begin(), text.end(), nullptr, false);
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), " is not JSON with an object \"weight_map\""));
  }
  std::map<std::string, std::string> result;
  for (const auto& [tensor, shard] : index["weight_map"].items()) {
    const std::string* name = shard.get_ptr<const std::string*>();
    if (name == nullptr || !StaysInside(*name)) {
      return absl::InvalidArgumentError(
          absl::StrCat(path.string(), ": tensor ", QuotedName(tensor), " is mapped to ",
                       name == nullptr ? "no file name" : QuotedName(*name),
                       "; a shard must lie in the model's directory"));
    }
    result[tensor] = *name;
  }
  return result;
}

}  // namespace

absl::StatusOr<Checkpoint> Checkpoint::Open(const std::filesystem::path& model_dir) {
  std::error_code ignored;
  if (!std::filesystem::exists(model_dir / kSingleFile, ignored)) {
    if (std::filesystem::exists(model_dir / kIndexFile, ignored)) {
      return OpenShards(model_dir, model_dir / kIndexFile);
    }
    return absl::NotFoundError(
        absl::StrCat(model_dir.string(), " holds neither ", kSingleFile, " nor ", kIndexFile));
  }
  Checkpoint result;
  MNEME_ASSIGN_OR_RETURN(const SafetensorsFile* file, result.OpenFile(model_dir, kSingleFile));
  const std::string* file_name = &result.files_.begin()->first;
  for (const auto& [name, tensor] : file->tensors()) result.tensors_[name] = {&tensor, file_name};
  return result;
}

absl::StatusOr<Checkpoint> Checkpoint::OpenShards(const std::filesystem::path& model_dir,
                                                  const std::filesystem::path& index_path) {
  MNEME_ASSIGN_OR_RETURN(const auto weight_map, ReadWeightMap(index_path));
  Checkpoint result;
  for (const auto& [name, shard] : weight_map) {
    MNEME_ASSIGN_OR_RETURN(const SafetensorsFile* file, result.OpenFile(model_dir, shard));
    const SafetensorsTensor* tensor = file->Find(name);
    if (tensor == nullptr) {
      return absl::NotFoundError(absl::StrCat("tensor ", QuotedName(name), " is missing in ",
                                              (model_dir / shard).string(), ", where ", kIndexFile,
                                              " places it"));
    }
    result.tensors_[name] = {tensor, &result.files_.find(shard)->first};
  }
  return result;
}

absl::StatusOr<const SafetensorsFile*> Checkpoint::OpenFile(const std::filesystem::path& model_dir,
                                                            const std::string& name) {
  if (const auto found = files_.find(name); found != files_.end()) return &found->second;
  MNEME_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(model_dir / name));
  return &files_.emplace(name, std::move(file)).first->second;
}

absl::StatusOr<HostTensor> Checkpoint::Find(const std::string& name, int64_t rows,
                                            int64_t cols) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    return absl::NotFoundError(absl::StrCat("the checkpoint lacks tensor ", QuotedName(name),
                                            ", which config.json needs"));
  }
  const SafetensorsTensor& tensor = *found->second.tensor;
  const auto error = [&](const std::string& what) {
    return absl::InvalidArgumentError(
        absl::StrCat(*found->second.file, ": tensor ", QuotedName(name), " ", what));
  };
  if (!HasShape(tensor, rows, cols)) {
    const std::vector<int64_t> expected =
        cols == 0 ? std::vector<int64_t>{rows} : std::vector<int64_t>{rows, cols};
    return error(absl::StrCat("has shape ", ShapeText(tensor.shape), ", but config.json makes it ",
                              ShapeText(expected)));
  }
  const std::optional<DType> dtype = FloatDType(tensor.dtype);
  if (!dtype) return error(absl::StrCat("has dtype ", tensor.dtype, "; use F32, F16 or BF16"));
  if (cols == 0) return HostTensor{tensor.bytes.data(), *dtype, 1, rows};
  return HostTensor{tensor.bytes.data(), *dtype, rows, cols};
}

std::vector<std::string> Checkpoint::Names() const {
  std::vector<std::string> names;
  for (const auto& entry : tensors_) names.push_back(entry.first);
  return names;
}

}  // namespace mneme
