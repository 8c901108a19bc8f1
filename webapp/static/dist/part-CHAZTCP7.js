var o=a=>/\.(wav|mp3|ogg|oga|flac|m4a|opus|aac)(\?|#|$)/i.test(a??"");export{o as a};
