/** Files written and read without holding up the isolate. */

/** Bytes of one read or write: an asynchronous write copies all that it is given first. */
export const FILE_PIECE_BYTES = 256 * 1024;

/** Writes all of `bytes` at the file's position. */
export async function writeFully(file: Deno.FsFile, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    done += await file.write(bytes.subarray(done, done + FILE_PIECE_BYTES));
  }
}
