// What an address leads to, as far as it says so.

/** Whether a file is a sound, told by the end of its name. */
export const isSound = (address) => /\.(wav|mp3|ogg|oga|flac|m4a|opus|aac)(\?|#|$)/i.test(address ?? "");
