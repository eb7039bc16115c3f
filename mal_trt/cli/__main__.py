from mal_trt.cli import main

main()
