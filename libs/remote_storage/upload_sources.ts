/** Where the bytes of an upload come from. */
import { FILE_PIECE_BYTES } from "./async_file.ts";
import type { UploadSource } from "./backend.ts";

/** Bytes in memory, which must not change meanwhile. */
export function bytesSource(bytes: Uint8Array): UploadSource {
  return {
    bytes: bytes.length,
    async *open() {
      yield bytes;
    },
  };
}

/**
 * The first `bytes` bytes of a file. `open` opens it, each time anew: what is unlinked or renamed
 * meanwhile can still be read to its end. `onPiece` sees each piece of each attempt, with its
 * offset.
 */
export function fileSource(
  open: () => Deno.FsFile,
  bytes: number,
  onPiece?: (piece: Uint8Array, offset: number) => void,
): UploadSource {
  return {
    bytes,
    async *open() {
      using file = open();
      for (let done = 0; done < bytes;) {
        // A new buffer for each piece: whoever sends it may still hold the last one.
        const piece = new Uint8Array(Math.min(FILE_PIECE_BYTES, bytes - done));
        const count = await file.read(piece);
        if (count === null) return;
        const read = piece.subarray(0, count);
        onPiece?.(read, done);
        done += count;
        yield read;
      }
    },
  };
}
