// half and bfloat16 are in cuda_words.h, which is there before any code.
