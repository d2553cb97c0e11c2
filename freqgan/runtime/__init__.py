"""How a computation is run: captured as a graph, or shared by several replicas. Nothing here knows a GAN."""
